"""Anatomy: spans, streams and branches are read from what happens to the tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.core.errors import BadModel
from shoal.core.spec import Spec
from shoal.dataflow import name_of
from shoal.edits.drop import Drop
from shoal.net import Net
from shoal.recipe import edited
from strangers import BasicBlock, Encoder, TinyResNet, randomised

IMAGE = torch.randn(2, 1, 8, 8)


def spans_of(module: nn.Module, example: Any) -> dict[str, tuple[bool, bool, int]]:
    return {span.path: (span.branch, span.skip, span.sums) for span in anatomy(module, example).spans}


def test_residual_blocks_are_stream_spans_in_one_chain() -> None:
    found = anatomy(TinyResNet(), IMAGE)
    streams = [span.path for span in found.spans if span.skip]
    assert streams == ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2"]
    assert found.chains == (("layer1.0", "layer1.1", "layer1.2"), ("layer2.1", "layer2.2"))
    assert "changes the shape" in found.left["layer2.0"]
    assert "part of the span layer1.0" in found.left["layer1.0.conv1"]
    assert "smaller spans" in found.left["layer1"]


def test_norms_behind_convolutions_fold() -> None:
    found = anatomy(TinyResNet(1), IMAGE)
    assert ("conv", "bn") in found.folds
    assert ("layer1.0.conv2", "layer1.0.bn2") in found.folds
    assert len(found.folds) == 5


def test_a_norm_that_is_not_the_only_reader_does_not_fold() -> None:
    class Peeks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn(y) + y

    assert anatomy(Peeks(), IMAGE).folds == ()


def test_sublayers_are_branches_and_replace_the_layer_they_make_up() -> None:
    found = spans_of(nn.Sequential(Encoder(), Encoder()), torch.randn(2, 5, 16))
    assert found == dict.fromkeys(("0.attention", "0.mlp", "1.attention", "1.mlp"), (True, False, 0))


def test_torch_transformer_layers_are_stream_spans_with_two_sums() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    found = spans_of(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 5, 16))
    assert found == {"layers.0": (False, True, 2), "layers.1": (False, True, 2)}


def test_plain_chains_have_plain_spans_and_matrices_that_fold() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8))
    assert spans_of(net, torch.randn(2, 8)) == dict.fromkeys("023", (False, False, 0))
    assert anatomy(net, torch.randn(2, 8)).folds == (("2", "3"), ("3", "4"))


def test_a_norm_over_the_middle_axis_does_not_fold_into_a_linear() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))  # on (n, 8, 8) the norm is over axis 1, the Linear over 2
    assert anatomy(net, torch.randn(2, 8, 8)).folds == ()


@pytest.mark.parametrize(
    ("text", "branches"),
    [
        ("residual(conv) 3x16-2x32", 5),
        ("grouped(conv) 4x16", 4),
        ("grouped[size=0](conv) 3x16", 3),
        ("residual(bottleneck) 3x16", 3),
    ],
)
def test_layers_of_a_net_are_branches(text: str, branches: int) -> None:
    net = Net(Spec.parse(f"convolution[channels=1] | {text} | pool[outputs=3]"))
    found = anatomy(net, torch.randn(2, 8, 8, 1))
    assert [span.path for span in found.spans if span.branch] == [
        f"stages.{s}.layers.{i}" for s, stage in enumerate(net.spec.stages) for i in range(stage.depth)
    ]
    assert len(found.spans) == branches


class Scaled(nn.Module):
    """x + gamma f(x), a learned scale a channel, as LayerScale has it."""

    def __init__(self, shape: tuple[int, ...], inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.gamma = inner, nn.Parameter(torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.inner(x)


@pytest.mark.parametrize(
    ("block", "example"),
    [
        (Scaled((8,), nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))), torch.randn(3, 8)),
        (Scaled((4, 1, 1), nn.Conv2d(4, 4, 3, padding=1)), torch.randn(2, 4, 6, 6)),
    ],
)
def test_behind_a_learned_scale_a_branch_is_a_branch(block: nn.Module, example: Tensor) -> None:
    found = anatomy(nn.Sequential(block), example)
    assert [(span.path, span.skip, span.sums) for span in found.spans] == [("0", True, 1)]
    [inner] = [span for span in anatomy(block, example).spans if span.path == "inner"]
    assert (inner.branch, inner.direct) == (True, False)  # to loop it, one would have to know the scale
    dropped = edited(block, Drop(path="inner", branch=True))
    with torch.no_grad():
        assert torch.equal(dropped(example), example)


def test_behind_a_norm_there_is_no_branch() -> None:
    """Zero would leave the norm's shift."""

    class PostNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.norm(self.inner(x))

    assert [span.branch for span in anatomy(PostNorm(), torch.randn(3, 8)).spans] == [False]


def test_operators_of_exported_graphs_have_names() -> None:
    assert name_of(torch.ops.aten.add.Tensor) == "add"
    assert name_of(torch.ops.aten.add_.Tensor) == "add_"
    assert name_of(torch.add) == "add"
    assert name_of(Tensor.__iadd__) == "__iadd__"

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = torch.ops.aten.add.Tensor(x, self.inner(x))
            return found

    assert spans_of(Exported(), torch.randn(3, 8)) == {"inner": (True, False, 0)}


def test_shared_modules_are_left_alone_and_said() -> None:
    block = BasicBlock(4, 4)
    found = anatomy(nn.Sequential(block, block, BasicBlock(4, 4)), torch.randn(2, 4, 6, 6))
    assert [span.path for span in found.spans] == ["2"]
    assert "shared" in found.left["0"]


def test_every_module_is_a_span_or_has_a_reason() -> None:
    net = TinyResNet()
    found = anatomy(net, IMAGE)
    names = {name for name, _ in net.named_modules() if name}
    assert names == {span.path for span in found.spans} | set(found.left)


def test_looking_changes_nothing() -> None:
    net = randomised(TinyResNet())
    net.train()
    net.layer1[0].eval()  # type: ignore[union-attr]
    modes = [part.training for part in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    anatomy(net, IMAGE.double())
    assert modes == [part.training for part in net.modules()]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_a_forward_that_fails_is_one_line() -> None:
    with pytest.raises(BadModel, match=r"TinyResNet.*give an example of the shapes") as caught:
        anatomy(TinyResNet(), torch.randn(2, 3, 8, 8))
    assert "\n" not in str(caught.value)
    assert not any(part._forward_hooks for part in TinyResNet().modules())


def test_keyword_examples() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = BasicBlock(4, 4)

        def forward(self, *, image: Tensor) -> Tensor:
            return self.block(image)

    assert list(spans_of(Named(), {"image": torch.randn(1, 4, 6, 6)})) == ["block"]
