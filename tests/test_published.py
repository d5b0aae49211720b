"""Other people's weights: they come under our names, and our nets give what theirs give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import shoal
from shoal.building import load_published
from shoal.core.errors import BadData, BadModel, Refused
from shoal.core.named import read_spec
from shoal.core.part import Part
from shoal.costing import cost
from shoal.edits.fold import Fold
from shoal.kinds import NETS
from shoal.net import load_net
from shoal.recipe import edited

FILE = Path(__file__).parent.parent / "examples" / "cifar10_resnet56.py"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def by_hand() -> ModuleType:
    """The ResNet of the example, in plain PyTorch."""
    made = importlib.util.spec_from_file_location("by_hand", FILE)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


def trained(net: nn.Module) -> nn.Module:
    """The net with norms that have seen something, in eval, float64."""
    torch.manual_seed(1)
    net = net.double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor)
    return net


def images(count: int) -> Tensor:
    """Random bytes, channels first."""
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def prepared(x: Tensor) -> Tensor:
    """Bytes with channels last as the pretrained nets take them."""
    return (x.movedim(1, -1) / 255 - MEAN) / STD


@pytest.mark.parametrize("blocks", [2, 3])
def test_resnet_is_the_plain_one_to_rounding(by_hand: ModuleType, blocks: int) -> None:
    """In float64, from the state of a module with its counters of batches; also where it was saved in parallel."""
    theirs = trained(by_hand.ResNet(blocks))
    x = prepared(images(2)).double()
    with torch.no_grad():
        wanted = theirs.linear(hidden(theirs, x))
    made = NETS.make(Part("resnet", {"depth": 6 * blocks + 2}))
    for prefix in ("", "module."):
        state = {prefix + name: value for name, value in theirs.state_dict().items()}
        net = load_net(made.spec(), made.weights(state))
        torch.testing.assert_close(net(x), wanted, rtol=1e-10, atol=1e-10)


def hidden(net: nn.Module, x: Tensor) -> Tensor:
    """What the plain ResNet gives its linear map, from prepared images with channels last."""
    y = torch.relu(net.bn1(net.conv1(x.movedim(-1, 1))))
    return net.layer3(net.layer2(net.layer1(y))).mean(dim=(2, 3))


def test_the_spec_of_resnet_holds_no_more_than_it(by_hand: ModuleType) -> None:
    """Multiply-adds and parameters are those of the plain module."""
    net, x = shoal.build("resnet[depth=14]").eval(), prepared(images(1))
    theirs = by_hand.ResNet(2).eval()
    found, wanted = cost(net, x), cost(theirs, images(1))
    assert (found.params, found.macs) == (wanted.params, wanted.macs)


def test_resnet_folds_exactly(by_hand: ModuleType) -> None:
    """All norms of blocks and joins go into the convolutions before them; the stem's stays."""
    made = NETS.make(Part("resnet", {"depth": 14}))
    net = load_net(made.spec(), made.weights(trained(by_hand.ResNet(2)).state_dict()))
    folded, x = edited(net, Fold()), prepared(images(2)).double()
    norms = [name for name, _ in folded.named_buffers() if name.endswith("running_var")]
    assert norms == ["stem.norm.running_var"]
    torch.testing.assert_close(folded(x), net(x), rtol=1e-10, atol=1e-10)
    with pytest.raises(Refused, match="no norm"):
        edited(folded, Fold())


@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet56"])
def test_pretrained_resnets_give_the_same_logits(by_hand: ModuleType, shared_data: Path, name: str) -> None:
    """The published weights in our net and in the plain one, on a few inputs; bench/published.py has the accuracies."""
    file = shared_data / f"cifar10_{name}.safetensors"
    net, theirs = load_published(name, file), by_hand.ResNet((int(name[6:]) - 2) // 6)
    theirs.load_state_dict(load_file(file), strict=True)
    x = images(4)
    with torch.no_grad():
        torch.testing.assert_close(net(prepared(x)), theirs.eval()(x), rtol=1e-5, atol=1e-5)
    assert sum(parameter.numel() for parameter in net.parameters()) == NETS.get("resnet").published[name]


def test_pretrained_resnet20_is_right(shared_data: Path) -> None:
    """On the first 400 test images it is as right as on all of them, to two standard errors."""
    with np.load(shared_data / "cifar10_test.npz") as file:  # differences of pixels, as its README says
        given, y = file["delta"][:, :400], torch.from_numpy(file["y"][:400])
    x = np.cumsum(np.cumsum(given, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    x[0] += x[1]
    x[2] += x[1]
    net = load_published("resnet20", shared_data / "cifar10_resnet20.safetensors")
    with torch.inference_mode():
        right = (net(prepared(torch.from_numpy(x).movedim(0, 1))).argmax(dim=1) == y).float().mean()
    assert right > 0.9173 - 2 * (0.9173 * (1 - 0.9173) / 400) ** 0.5


def test_what_does_not_fit_is_said_in_one_line(by_hand: ModuleType, tmp_path: Path) -> None:
    state, file = by_hand.ResNet(2).state_dict(), tmp_path / "weights.safetensors"
    save_file({**state, "layer4.0.conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(Refused, match=r"'layer4.0.conv1.weight' has no place"):
        load_published("resnet[depth=14]", file)
    save_file({name: value for name, value in state.items() if name != "layer2.0.bn2.bias"}, file)
    with pytest.raises(BadModel, match=r"missing \['stages.1.join.outer.bias'\]"):
        load_published("resnet[depth=14]", file)
    save_file(state, file)
    with pytest.raises(BadModel, match="missing"):
        load_published("resnet20", file)
    with pytest.raises(BadModel, match="other shape"):
        load_published("resnet[depth=14,outputs=7]", file)
    with pytest.raises(Refused, match="no key map"):
        load_published("densenet40", file)
    file.write_bytes(b"no safetensors")
    with pytest.raises(BadData, match="cannot be read as safetensors"):
        load_published("resnet[depth=14]", file)
    with pytest.raises(BadData, match="cannot be read as safetensors"):
        load_published("resnet[depth=14]", tmp_path / "nowhere")


def test_the_callers_weights_stay_as_they_are(by_hand: ModuleType) -> None:
    made = NETS.make(Part("resnet", {"depth": 14}))
    state = by_hand.ResNet(2).state_dict()
    before = {name: value.clone() for name, value in state.items()}
    load_net(read_spec("resnet[depth=14]"), made.weights(state)).train()(prepared(images(2)))
    assert all(torch.equal(value, before[name]) for name, value in state.items())
