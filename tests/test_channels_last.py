"""Channels last: an exact edit; what is exact alone is enough where the goals are met by it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shoal
from laid_out import images, last
from shoal import compression
from shoal.artifact import save
from shoal.core.channels import channels_first
from shoal.core.errors import Refused
from shoal.core.spec import Spec
from shoal.edits.channels_last import ChannelsLast
from shoal.goals import parse_goals
from shoal.net import Net
from shoal.recipe import Recipe, edited
from shoal.report import page
from shoal.report.reading import figures
from shoal.shrinking import planning
from shoal.shrinking.scale import Scale
from shoal.training import TrainingRecipe

QUICK = TrainingRecipe(lr=1e-3, batch=16, epochs=1)


class Spans(nn.Module):
    """Convolutions with norms and skips, as anybody writes them."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.spans = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(depth)
        )
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for span in self.spans:
            x = x + span(x)
        answer: Tensor = self.head(x.mean(dim=(2, 3)))
        return answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "TIMED", 0.05)
    monkeypatch.setattr(planning, "PATIENT", 0.1)


def test_it_is_exact_and_moves_nothing_else() -> None:
    net, x = Spans().double().eval(), images(120)[0].double()
    paths = channels_first(net)
    assert paths == ("stem", *(f"spans.{i}.0" for i in range(4)))
    laid = edited(net, ChannelsLast(paths=paths[1:]))
    assert channels_first(net) == paths
    assert channels_first(laid) == ("stem",)
    assert all(last(laid.get_parameter(f"{path}.weight")) for path in paths[1:])
    assert all(torch.equal(value, laid.state_dict()[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        assert float((laid(x) - net(x)).abs().max()) < 1e-10
        assert laid.get_submodule("spans.0")(x.new_ones(1, 8, 4, 4)).is_contiguous(memory_format=torch.channels_last)


def test_depthwise_ones_and_weights_made_of_others_stay() -> None:
    deep = nn.Conv2d(8, 8, 3, groups=8)
    made = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    assert channels_first(nn.Sequential(made, deep, nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3))) == ("3",)
    for paths, why in (((), "no paths given"), (("1",), "no Conv2d"), (("0",), "no Conv2d that has its weights")):
        with pytest.raises(Refused, match=why):
            edited(nn.Sequential(made, nn.ReLU()), ChannelsLast(paths=paths))
    net = Net(Spec.parse("vector[features=5] | residual(mlp) 1x4 | pool[outputs=2]"))
    with pytest.raises(Refused, match="leave paths empty"):
        edited(net, ChannelsLast(paths=("stem",)))


def test_what_is_saved_lies_so_again(tmp_path: Path) -> None:
    x, _ = images(120)
    edit = ChannelsLast(paths=channels_first(Spans()))
    laid = edited(Spans().eval(), edit)
    with torch.no_grad():
        for weight in laid.parameters():
            weight.add_(0.01)
    thing = SimpleNamespace(module=laid, recipe=Recipe(None, (edit,)), report={}, data=None, example=x[:1])
    save(thing, tmp_path / "run", onnx=False)
    again = shoal.load(tmp_path / "run", base=Spans)
    assert channels_first(again) == ()
    with torch.no_grad():
        assert torch.equal(again(x), laid(x))
        program = torch.export.load(tmp_path / "run" / "model.pt2").module(check_guards=False)
        torch.testing.assert_close(program(x), laid(x))


def test_a_latency_goal_lays_out_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scale, "_quicker", lambda scale: True)
    net = Spans().eval()
    found = shoal.compress(
        net, images(120), to="latency<=60%,params<=70%", keep=None, recipe=QUICK, compressors=("skip",), controls=False
    )
    assert [edit.name for edit in found.edits][-2:] == ["fold", "channels_last"]
    assert channels_first(found.module) == ()
    assert channels_first(net) != ()
    x = images(120)[0]
    with torch.no_grad():
        again = found.recipe.replay(Spans())
        again.load_state_dict(found.module.state_dict())
        assert torch.equal(again.eval()(x), found.module(x))
    exact = next(each for each in figures(found.report) if each.name == "latency, exact edits alone")
    assert exact.note.startswith("the original folded, its channels last where that is faster")
    assert "latency, exact edits alone" in page(found.report)


def test_only_eager_latency_asks_for_a_layout() -> None:
    net, x = Spans().eval(), images(120)[0][:1]
    for goal, runtime in (("params<=50%", "eager"), ("latency<=50%", "onnxruntime")):
        scale = Scale(parse_goals(goal), net, x, runtime)
        assert scale.lays_out is False
        assert channels_first(scale.ended(net)) != ()
        assert scale.laid(net) is net


def test_what_is_exact_alone_may_be_enough(tmp_path: Path) -> None:
    """Norms that fold are more than a hundredth of the weights here: nothing is taken out, healed or controlled."""
    net, lines, (x, _) = Spans().eval(), list[str](), images(120)
    asked: dict[str, Any] = {"to": "params<=99%", "recipe": QUICK, "compressors": ("skip",), "within": 30}
    found = shoal.compress(net, images(2400), **asked, progress=lines.append, checkpoint=tmp_path / "work")
    assert found.goals_met
    assert found.floor.word == "pass"
    assert found.steps == ()
    assert [edit.name for edit in found.edits] == ["fold"]
    assert (found.controls, found.interrupted, found.healing.history[-1]["step"]) == ((), False, 0)
    assert found.healing.stopped == "nothing to heal"
    assert any("the goals are met by it" in note for note in found.notes)
    assert not any("healing " in line for line in lines)
    with torch.no_grad():
        torch.testing.assert_close(found.module(x), net(x))
    report = json.loads(json.dumps(found.report))
    assert report["after"]["params"] <= 0.99 * report["before"]["params"]
    assert "what is exact alone" in page(report)
    again = shoal.compress(net, images(2400), **asked, checkpoint=tmp_path / "work", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(found.module.parameters(), again.module.parameters(), strict=True))
