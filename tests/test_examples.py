"""The examples: what they load is what they say, and shoal finds its way in it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from shoal.anatomy import anatomy
from shoal.edits.fold import Fold
from shoal.recipe import edited

FILE = Path(__file__).parent.parent / "examples" / "cifar10_resnet56.py"


@pytest.fixture
def example(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("SHOAL_DATA", str(shared_data))
    made = importlib.util.spec_from_file_location("cifar10_resnet56", FILE)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


def test_pretrained_resnet56_is_read_right(example: ModuleType) -> None:
    """On the first 400 test images, and every block that can go is found."""
    net = example.model()
    train_x, train_y, test_x, test_y = example.data()
    assert (len(train_x), len(train_y), len(test_x)) == (50_000, 50_000, 10_000)
    with torch.inference_mode():
        right = (net(test_x[:400]).argmax(dim=1) == test_y[:400]).float().mean()
    assert right > 0.91
    found = anatomy(net, test_x[:1])
    assert sum(span.skip for span in found.spans) == 25
    assert len(found.folds) == 55
    folded = edited(net, Fold(pairs=found.folds))
    with torch.inference_mode():
        torch.testing.assert_close(folded(test_x[:20]), net(test_x[:20]), rtol=1e-3, atol=1e-3)
