"""Token nets: counts by hand, equal forms, and what each paper's specification says must hold exactly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import shoal
from shoal.core.errors import BadModel, BadSetting
from shoal.core.named import read_spec
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec
from shoal.edits.fold import Fold
from shoal.edits.merge import Merge
from shoal.kinds import BLOCKS, JOINS, NETS, NORMS, STEMS, WIRINGS
from shoal.net import Layer, Net, empty, load_net
from shoal.testing._costs import require_costed
from shoal.testing._samples import OFFERS

ROWS = "convolution[channels=8,kernel=[3]]"
IMAGE = "channels=2,size=[6,6],patch=2"


def net(text: str, seed: int = 0) -> Net:
    """A float64 net in eval whose weights have all left their initial values."""
    torch.manual_seed(seed)
    made = Net(read_spec(text)).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.empty_like(parameter).uniform_(-0.2, 0.2))
    return made.eval()


def layer(text: str, dim: int = 8) -> Layer:
    torch.manual_seed(0)
    return Layer(LayerSpec(Part.parse(text), Part("none")), dim, dim).double().eval()


def image(rows: int = 2) -> Tensor:
    return torch.randn(rows, 6, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def row(places: int = 5, dim: int = 8) -> Tensor:
    return torch.randn(2, places, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def count(text: str) -> int:
    return sum(weight.numel() for weight in empty(read_spec(text)).parameters())


# ---- parameters, by hand: a matrix a -> b has a * b + b, a norm of d channels 2 * d


def matrix(a: int, b: int) -> int:
    return a * b + b


def mlp(dim: int, hidden: int) -> int:
    return matrix(dim, hidden) + matrix(hidden, dim)


def vit(dim: int, layers: int, squares: int = 196, patch: int = 16) -> int:
    one = 2 * 2 * dim + 4 * matrix(dim, dim) + mlp(dim, 4 * dim)
    return matrix(3 * patch**2, dim) + dim + (squares + 1) * dim + layers * one + 2 * dim + matrix(dim, 1000)


def mixer(dim: int, layers: int, squares: int = 196, patch: int = 16) -> int:
    one = 2 * 2 * dim + mlp(squares, dim // 2) + mlp(dim, 4 * dim)
    return matrix(3 * patch**2, dim) + layers * one + 2 * dim + matrix(dim, 1000)


def resmlp(dim: int, layers: int, squares: int = 196, patch: int = 16) -> int:
    one = 2 * 2 * dim + matrix(squares, squares) + mlp(dim, 4 * dim) + 2 * dim
    return matrix(3 * patch**2, dim) + layers * one + 2 * dim + matrix(dim, 1000)


def cait(dim: int, layers: int, heads: int, squares: int = 196) -> int:
    one = 2 * 2 * dim + 4 * matrix(dim, dim) + mlp(dim, 4 * dim) + 2 * dim
    talk = 2 * matrix(heads, heads)
    ends = matrix(3 * 16**2, dim) + squares * dim + dim + 2 * dim + matrix(dim, 1000)
    return ends + layers * (one + talk) + 2 * one


def gpt2(dim: int, layers: int) -> int:
    """With one table for the tokens and their scores."""
    one = 2 * 2 * dim + 4 * matrix(dim, dim) + mlp(dim, 4 * dim)
    return 50257 * dim + 1024 * dim + layers * one + 2 * dim


def bert(dim: int, layers: int) -> int:
    one = 2 * 2 * dim + 4 * matrix(dim, dim) + mlp(dim, 4 * dim)
    return (30522 + 512 + 2) * dim + 2 * dim + layers * one + matrix(dim, dim)


COUNTS = [  # last: what the official code or its ports are recalled to have, where that is known to the unit
    ("vit_tiny", vit(192, 12), 5_717_416),
    ("vit_small", vit(384, 12), 22_050_664),
    ("vit_base", vit(768, 12), 86_567_656),
    ("vit_large", vit(1024, 24), 304_326_632),
    ("mixer_s16", mixer(512, 8), 18_528_264),
    ("mixer_b16", mixer(768, 12), 59_880_472),
    ("mixer_s32", mixer(512, 8, 49, 32), None),
    ("mixer_b32", mixer(768, 12, 49, 32), None),
    ("mixer_l16", mixer(1024, 24), None),
    ("resmlp_s12", resmlp(384, 12), 15_350_872),
    ("resmlp_s24", resmlp(384, 24), 30_020_680),
    ("resmlp_b24", resmlp(768, 24, 784, 8), None),
    ("cait_xxs24", cait(192, 24, 4), 11_956_264),
    ("cait_xxs36", cait(192, 36, 4), None),
    ("cait_xs24", cait(288, 24, 6), None),
    ("cait_s24", cait(384, 24, 8), None),
    ("cait_s36", cait(384, 36, 8), None),
    ("bert_base", bert(768, 12) + matrix(768, 2), 109_482_240 + matrix(768, 2)),  # without and with two classes
    ("gpt2", gpt2(768, 12) + 50257 * 768, 124_439_808 + 50257 * 768),  # the head's copy of the table comes on top
]


@pytest.mark.parametrize(("name", "by_hand", "stated"), COUNTS, ids=[name for name, *_ in COUNTS])
def test_parameters_are_as_counted_by_hand_and_as_stated(name: str, by_hand: int, stated: int | None) -> None:
    assert count(name) == by_hand
    assert stated is None or by_hand == stated


# ---- named nets


@pytest.mark.parametrize("name", ["vit", "mixer", "resmlp", "cait", "widenet"])
def test_image_nets_take_their_ends_from_data(name: str) -> None:
    digits = shoal.open_data("digits")
    small = "patch=2,dim=8,layers=1" + (",heads=2" if name in ("vit", "cait", "widenet") else "")
    made = shoal.build(f"{name}[{small}]", like=digits)
    assert made(digits.example(2)).shape == (2, 10)
    with pytest.raises(BadSetting, match=f"net {name}: squares of 16 do not divide"):
        shoal.build(name, like=digits)
    with pytest.raises(BadSetting, match=f"net {name}: layers=0; give at least 1"):
        read_spec(f"{name}[layers=0]")


def test_token_nets_refuse_sizes_that_make_no_net() -> None:
    for name in ("transformer", "wide_attention", "gpt2", "bert"):
        with pytest.raises(BadSetting, match=f"net {name}: dim=0"):
            read_spec(f"{name}[dim=0]")
    with pytest.raises(BadSetting, match="48 heads cannot be spread evenly over 5 layers"):
        read_spec("wide_attention[layers=5]")
    with pytest.raises(BadSetting, match="longest no less"):
        read_spec("delight[shortest=4,longest=3]")


# ---- stems and heads


def test_a_class_token_stands_in_front_and_the_patches_stay() -> None:
    stems = []
    for token in (False, True):
        part = Part("patches", {"channels": 2, "size": (6, 6), "patch": 2, "class_token": token})
        stems.append(STEMS.make(part, 8, dim=8, offers=OFFERS).double())
    plain, with_token = stems
    x = image()
    assert plain(x).shape == (2, 3, 3, 8)
    with torch.no_grad():
        with_token.map.load_state_dict(plain.map.state_dict())
        with_token.position[1:].copy_(plain.position.flatten(0, 1))
    y = with_token(x)
    close(y[:, 1:], plain(x).flatten(1, 2))
    close(y[:, 0], (with_token.token + with_token.position[0]).expand(2, -1))


def test_patches_without_positions_are_the_map_alone() -> None:
    part = Part("patches", {"channels": 2, "size": (6, 6), "patch": 2, "position": False})
    stem = STEMS.make(part, 8, dim=8, offers=OFFERS).double()
    kernel = stem.map.weight.unflatten(1, (2, 2, 2)).permute(0, 3, 1, 2)
    wanted = F.conv2d(image().movedim(-1, 1), kernel, stem.map.bias, stride=2).movedim(1, -1)
    close(stem(image()), wanted)


def test_tokens_may_have_kinds_and_a_norm() -> None:
    part = Part("tokens", {"vocabulary": 7, "length": 6, "kinds": 2, "norm": "layer[eps=1e-12]"})
    stem = STEMS.make(part, 8, dim=8, offers=OFFERS).double()
    words, kinds = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[0, 1, 1], [0, 0, 1]])
    total = stem.table(words) + stem.position.weight[:3] + stem.kind(kinds)
    close(stem(torch.stack((words, kinds), dim=-1)), F.layer_norm(total, (8,), eps=1e-12))
    close(stem(words), stem(torch.stack((words, torch.zeros_like(words)), dim=-1)))
    plain = STEMS.make(Part("tokens", {"vocabulary": 7, "length": 6}), 8, dim=8, offers=OFFERS)
    with pytest.raises(BadModel, match="it has none; set kinds"):
        plain(torch.stack((words, kinds), dim=-1))


def test_heads_read_the_first_place_or_every_place() -> None:
    stem = f"{ROWS} | residual(mlp) 1x8"
    first, every, pooler = (net(f"{stem} | {head}").head for head in (
        "first[outputs=3]", "every[outputs=3,bias=false]", "pooler[outputs=3]"
    ))  # fmt: skip
    x = row()
    close(first(x), first.map(first.norm(x[:, 0])))
    close(pooler(x), pooler.map(torch.tanh(pooler.pool(x[:, 0]))))
    close(every(x), every.norm(x) @ every.map.weight.T)
    assert every.map.bias is None


# ---- the reference: torch's own layers


def reference(layers: int, *, first: bool) -> nn.TransformerEncoder:
    """Torch's stack of transformer layers, its weights off their initial values."""
    one = nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=first, dtype=torch.float64)
    stack = nn.TransformerEncoder(one, layers, enable_nested_tensor=False)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.uniform_(-0.5, 0.5)
    return stack.eval()


def fill(block: nn.Module, attention: nn.MultiheadAttention) -> None:
    """Torch's weights of attention, laid together there, into our four matrices."""
    with torch.no_grad():
        for part, weight, bias in zip(
            ("query", "key", "value"), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True
        ):
            block.get_submodule(part).weight.copy_(weight)
            block.get_submodule(part).bias.copy_(bias)
    block.out.load_state_dict(attention.out_proj.state_dict())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_transformer_is_torchs_with_norms_before_and_behind(norm: str, causal: bool) -> None:
    sizes = f"norm={norm},causal={str(causal).lower()},vocabulary=7,length=5,dim=8,layers=3,heads=2,hidden=12"
    made, wanted = net(f"transformer[{sizes}]"), reference(3, first=norm == "pre")
    stage = made.stages[0]
    for index, theirs in enumerate(wanted.layers):
        if norm == "pre":
            block = stage.layers[index].block
            attention, mlp, norms = block, block, (block.before_attention, block.before_mlp)
        else:
            attention, mlp = stage.layers[2 * index].block, stage.layers[2 * index + 1].block
            norms = stage.wiring.norms[2 * index : 2 * index + 2]
        fill(attention, theirs.self_attn)
        mlp.up.load_state_dict(theirs.linear1.state_dict())
        mlp.down.load_state_dict(theirs.linear2.state_dict())
        for ours, other in zip(norms, (theirs.norm1, theirs.norm2), strict=True):
            ours.load_state_dict(other.state_dict())
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64) if causal else None
    close(stage(row(), None, 0, None), wanted(row(), mask=mask))


def test_a_decoder_reads_only_backwards_and_an_encoder_everything() -> None:
    sizes = "vocabulary=7,length=6,dim=8,layers=2,heads=2,outputs=7"
    words = torch.tensor([[1, 2, 3, 4, 5, 6]])
    other = words.clone()
    other[0, 3] = 0
    decoder, encoder = net(f"transformer_decoder[{sizes}]"), net(f"transformer_encoder[{sizes}]")
    before, after = decoder(words), decoder(other)
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(dim=-1).all()
    assert encoder(words).shape == (1, 7)
    assert not torch.equal(encoder(words), encoder(other))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6))
def test_post_norm_is_normalised_at_every_depth(depth: int, dim: int) -> None:
    wiring = WIRINGS.make(Part("post_norm"), dim, depth, dim=dim, offers=OFFERS).double()
    y = wiring(row(4, dim), [torch.sin] * depth)
    close(y.mean(dim=-1), torch.zeros(2, 4, dtype=torch.float64))
    assert (y.square().mean(dim=-1) <= 1 + 1e-10).all()


# ---- wide attention


def test_attention_weights_are_as_many_at_any_number_of_layers_and_one_layer_has_one_mlp() -> None:
    attention, mlps = {}, {}
    for layers in (6, 3, 2, 1):
        made = empty(read_spec(f"wide_attention[layers={layers},dim=16,head_dim=4]"))
        blocks = [each.block for each in made.stages[0].layers]
        assert len(blocks) == layers
        attention[layers] = sum(part.weight.numel() for b in blocks for part in (b.query, b.key, b.value, b.out))
        mlps[layers] = sum(part.weight.numel() for b in blocks for part in (b.up, b.down))
    assert set(attention.values()) == {4 * 48 * 4 * 16}
    assert mlps == {layers: layers * 2 * 16 * 64 for layers in (6, 3, 2, 1)}


def test_heads_may_change_places() -> None:
    made = net("wide_attention[vocabulary=7,length=6,dim=8,layers=1,heads=4,head_dim=2]")
    words = torch.tensor([[1, 2, 3, 4], [6, 5, 4, 3]])
    before, block = made(words), made.stages[0].layers[0].block
    order = torch.tensor([2, 0, 3, 1]).repeat_interleave(2) * 2 + torch.tensor([0, 1]).repeat(4)
    with torch.no_grad():
        for part in (block.query, block.key, block.value):
            part.weight.copy_(part.weight[order])
            part.bias.copy_(part.bias[order])
        block.out.weight.copy_(block.out.weight[:, order])
    close(made(words), before)


# ---- rows of places: token mixing and token linear


@pytest.mark.parametrize("block", ["token_mixing[places=9,hidden=4]", "token_linear[places=9]"])
def test_a_short_row_is_one_filled_up_with_zeros_and_a_long_one_is_refused(block: str) -> None:
    made, x = layer(block), row(6)
    full = torch.cat((x, torch.zeros(2, 3, 8, dtype=torch.float64)), dim=1)
    close(made(x), made(full)[:, :6])
    close(made(full.unflatten(1, (3, 3))), made(full).unflatten(1, (3, 3)))
    with pytest.raises(BadModel, match="10 places come in, it is made for 9; set places higher"):
        made(row(10))


def test_mixing_is_the_same_for_every_channel() -> None:
    for block in ("token_mixing[places=5,hidden=4]", "token_linear[places=5]"):
        made, x, order = layer(block), row(), torch.tensor([3, 0, 7, 1, 2, 6, 5, 4])
        close(made(x[..., order]), made(x)[..., order])


def test_mixer_is_its_form_written_by_hand() -> None:
    made = net(f"mixer[{IMAGE},dim=8,layers=2,outputs=3]")
    x, layers = made.stem(image()).flatten(1, 2), made.stages[0].layers

    def norm(part: nn.Module, x: Tensor) -> Tensor:
        return F.layer_norm(x, (8,), part.weight, part.bias, 1e-6)

    for tokens, channels in zip(layers[::2], layers[1::2], strict=True):
        one, two = tokens.block.up, tokens.block.down
        hidden = F.gelu(one.weight @ norm(tokens.norm, x) + one.bias[:, None])
        x = x + two.weight @ hidden + two.bias[:, None]
        x = x + channels.block.down(F.gelu(channels.block.up(norm(channels.norm, x))))
    close(made(image()), made.head.map(norm(made.head.norm, x).mean(dim=1)))


def test_mixer_patches_may_change_places_with_the_weights_along_them() -> None:
    made = net(f"mixer[{IMAGE},dim=8,layers=2,outputs=3]")
    x = made.stem(image())
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    before = made.head(made.stages[0](x, None, 0, None))
    with torch.no_grad():
        for each in made.stages[0].layers[::2]:
            each.block.up.weight.copy_(each.block.up.weight[:, order])
            each.block.down.weight.copy_(each.block.down.weight[order])
            each.block.down.bias.copy_(each.block.down.bias[order])
    moved = x.flatten(1, 2)[:, order].unflatten(1, (3, 3))
    close(made.head(made.stages[0](moved, None, 0, None)), before)


def test_mixer_without_token_mixing_is_a_net_of_each_place_alone() -> None:
    made = net(f"mixer[{IMAGE},dim=8,layers=2,outputs=3]")
    stage, x = made.stages[0], made.stem(image())
    with torch.no_grad():
        for each in stage.layers[::2]:
            each.block.down.weight.zero_()
            each.block.down.bias.zero_()
    channels = WIRINGS.make(Part("residual"), 8, 2, dim=8)
    y = stage(x, None, 0, None)
    close(y, channels(x, list(stage.layers[1::2])))
    other = x.clone()
    other[:, 0, 0] += 1
    close(stage(other, None, 0, None)[:, 1:], y[:, 1:])


def test_mixer_layers_have_the_weights_that_the_paper_counts() -> None:
    made = empty(read_spec("mixer_s16"))
    tokens, channels = (each.block for each in made.stages[0].layers[:2])
    weights = [part.weight.numel() for part in (tokens.up, tokens.down, channels.up, channels.down)]
    assert sum(weights) == 2 * (196 * 256 + 512 * 2048)
    assert made.stem.position is None


# ---- ResMLP


def test_resmlp_is_its_form_written_by_hand() -> None:
    made = net(f"resmlp[{IMAGE},dim=8,layers=2,outputs=3]")
    x, layers, scales = made.stem(image()).flatten(1, 2), made.stages[0].layers, made.stages[0].wiring.scales

    def affine(part: nn.Module, x: Tensor) -> Tensor:
        return part.weight * x + part.bias

    for index in (0, 2):
        tokens, channels = layers[index], layers[index + 1]
        matrix = tokens.block.map
        x = x + scales[index] * (matrix.weight @ affine(tokens.norm, x) + matrix.bias[:, None])
        hidden = F.gelu(channels.block.up(affine(channels.norm, x)))
        x = x + scales[index + 1] * channels.block.down(hidden)
    close(made(image()), made.head.map(affine(made.head.norm, x).mean(dim=1)))


def test_affine_goes_into_the_matrix_that_reads_it() -> None:
    made = net(f"resmlp[{IMAGE},dim=8,layers=2,outputs=3]")
    x = made.stem(image())
    for each in made.stages[0].layers[1::2]:
        scale, shift = each.norm.affine()
        up, wanted = each.block.up, each(x)
        with torch.no_grad():
            up.bias.add_(up.weight @ shift)
            up.weight.mul_(scale)
        close(each.block(x), wanted)


def test_affine_before_the_matrix_of_places_goes_behind_it() -> None:
    """lam * (A (scale x + shift) + b) = (lam scale) * (A x) + lam * ((A 1) shift + b): a scale of channels, a bias."""
    made = net(f"resmlp[{IMAGE},dim=8,layers=1,outputs=3]")
    each, lam = made.stages[0].layers[0], made.stages[0].wiring.scales[0]
    x = made.stem(image()).flatten(1, 2)
    scale, shift = each.norm.affine()
    matrix, bias = each.block.map.weight, each.block.map.bias
    folded = (lam * scale) * (matrix @ x) + lam * (matrix.sum(1)[:, None] * shift + bias[:, None])
    close(folded, lam * each(x))


def test_resmlp_begins_as_the_identity_where_its_scales_do() -> None:
    torch.manual_seed(0)
    made = Net(read_spec(f"resmlp[{IMAGE},dim=8,layers=3,outputs=3,init=0.0]")).double()
    x = made.stem(image())
    assert torch.equal(made.stages[0](x, None, 0, None), x)


def test_the_matrix_of_places_does_not_look_at_the_data() -> None:
    made = layer("token_linear[places=5]")
    slopes = [torch.func.jacrev(made)(x[:1]) for x in (row(), row() ** 2)]
    close(*slopes)


def test_two_matrices_of_places_are_one() -> None:
    first, second, both = (layer("token_linear[places=5]") for _ in range(3))
    with torch.no_grad():
        second.block.map.weight.uniform_(-1, 1)
        both.block.map.weight.copy_(second.block.map.weight @ first.block.map.weight)
        both.block.map.bias.copy_(second.block.map.weight @ first.block.map.bias + second.block.map.bias)
    close(both(row()), second(first(row())))


def test_affine_folds_into_the_mlps_of_a_net_as_an_edit() -> None:
    """The edit `fold` finds it by itself: the norm is a map of single channels in eval."""
    torch.manual_seed(0)
    made = net("vector[features=5] | residual(mlp[hidden=6] norm=affine) 3x8 | pool[outputs=2]")
    x = torch.randn(3, 5, dtype=torch.float64)
    spec, weights = Fold().rewrite(made.spec, made.state_dict())
    assert "norm=none" in str(spec)
    close(load_net(spec, weights)(x), made(x))


# ---- CaiT


def test_class_attention_is_the_first_row_of_attention() -> None:
    full, first = layer("attention[heads=2]"), layer("class_attention[heads=2]")
    first.block.load_state_dict(full.block.state_dict())
    x = row()
    close(first(x)[:, 0], full(x)[:, 0])
    assert not first(x)[:, 1:].any()
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[:, 3:] = False
    close(first(x, {"mask": mask})[:, 0], full(x[:, :3])[:, 0])


def test_class_layers_leave_the_patches_as_they_are() -> None:
    made = net(f"cait[{IMAGE},dim=8,layers=1,class_layers=2,heads=2,outputs=3]")
    x = made.stages[0](made.stem(image()), None, 0, None)
    joined = made.stages[1].join(x)
    y = made.stages[1](x, None, 1, None)
    close(joined[:, 1:], x.flatten(1, 2))
    assert torch.equal(y[:, 1:], joined[:, 1:])
    assert not torch.equal(y[:, 0], joined[:, 0])
    close(made(image()), made.head(y[:, :1]))


def test_cait_is_its_form_written_by_hand() -> None:
    made = net(f"cait[{IMAGE},dim=8,layers=2,class_layers=2,heads=2,outputs=3]")
    x = made.stem(image()).flatten(1, 2)
    first, second = made.stages

    def mlp(block: nn.Module, x: Tensor) -> Tensor:
        return block.down(F.gelu(block.up(x)))

    for index in (0, 2):
        attention, other = first.layers[index], first.layers[index + 1]
        x = x + first.wiring.scales[index] * attention(x)
        x = x + first.wiring.scales[index + 1] * mlp(other.block, other.norm(x))
    token = second.join.token.expand(2, 1, -1)
    for index in (0, 2):
        attention, other = second.layers[index], second.layers[index + 1]
        all_ = attention.norm(torch.cat((token, x), dim=1))
        block = attention.block
        q, k, v = (part(all_).unflatten(-1, (2, 4)).transpose(1, 2) for part in (block.query, block.key, block.value))
        weights = (q[:, :, :1] @ k.mT / 2).softmax(dim=-1)
        token = token + second.wiring.scales[index] * block.out((weights @ v).transpose(1, 2).flatten(2))
        token = token + second.wiring.scales[index + 1] * mlp(other.block, other.norm(token))
    close(made(image()), made.head.map(made.head.norm(token[:, 0])))


def test_scales_of_zero_leave_the_class_token_alone() -> None:
    torch.manual_seed(0)
    made = Net(read_spec(f"cait[{IMAGE},dim=8,layers=2,class_layers=1,heads=2,outputs=3,init=0.0]")).double().eval()
    x = made.stem(image())
    assert torch.equal(made.stages[0](x, None, 0, None), x)
    close(made(image()), made.head(made.stages[1].join.token.expand(2, 1, -1)))


def test_layer_scale_goes_into_the_last_matrix_of_each_layer() -> None:
    made = net(f"cait[{IMAGE},dim=8,layers=2,class_layers=1,heads=2,outputs=3]")
    wanted = made(image())
    for stage in made.stages:
        for each, scale in zip(stage.layers, stage.wiring.scales, strict=True):
            for name in type(each.block).outlets:
                last = each.block.get_submodule(name)
                with torch.no_grad():
                    last.weight.mul_(scale[:, None])
                    last.bias.mul_(scale)
            with torch.no_grad():
                scale.fill_(1)
    close(made(image()), wanted)


def test_talking_heads_that_do_not_talk_are_attention() -> None:
    full, talking = layer("attention[heads=2]"), layer("talking_heads[heads=2]")
    talking.block.load_state_dict(full.block.state_dict(), strict=False)
    with torch.no_grad():
        for part in (talking.block.before, talking.block.after):
            part.weight.copy_(torch.eye(2))
            part.bias.zero_()
    close(talking(row()), full(row()))
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[:, 3:] = False
    close(talking(row(), {"mask": mask}), full(row(), {"mask": mask}))
    close(talking(row(), {"mask": mask[:, None, None, :].expand(2, 2, 5, 5)}), full(row(), {"mask": mask}))


def test_talking_heads_by_the_sum_over_pairs_of_heads() -> None:
    made, x = layer("talking_heads[heads=2]"), row()
    block = made.block
    q, k, v = (part(x).unflatten(-1, (2, 4)) for part in (block.query, block.key, block.value))
    scores = torch.einsum("bihd,bjhd->bijh", q, k) / 2
    scores = torch.einsum("bijh,gh->bijg", scores, block.before.weight) + block.before.bias
    weights = torch.einsum("bijh,gh->bijg", scores.softmax(dim=2), block.after.weight) + block.after.bias
    close(made(x), block.out(torch.einsum("bijh,bjhd->bihd", weights, v).flatten(2)))


def test_the_class_token_becomes_as_wide_as_the_next_stage() -> None:
    join = JOINS.make(Part("class_token"), 8, 12, dim=12, offers=OFFERS).double()
    y = join(row())
    assert y.shape == (2, 6, 12)
    close(y[:, 1:], join.map(row()))


# ---- DeLighT


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from([4, 6, 8, 12, 16]))
def test_delight_widens_then_narrows_with_groups_that_double_and_halve(layers: int, groups: int, dim: int) -> None:
    block = layer(f"delight[layers={layers},groups={groups},widen=2.0]", dim).block
    widths, parts = [step.outputs for step in block.steps], [step.groups for step in block.steps]
    widest = (layers + 1) // 2 - 1
    assert widths[widest] >= 2 * dim
    assert widths[widest] - 2 * dim < max(parts)
    assert widths[-1] == dim // 2
    assert all(a <= b for a, b in pairwise(widths[: widest + 1]))
    assert all(a >= b for a, b in pairwise(widths[widest:]))
    assert parts == parts[::-1]
    assert parts[0] == 1
    assert all(dim % each == 0 and each <= groups for each in parts)
    assert block(row(3, dim)).shape == (2, 3, dim)


def test_a_grouped_matrix_is_a_block_diagonal_one() -> None:
    block = layer("delight[layers=5,groups=4]").block
    assert [step.groups for step in block.steps] == [1, 2, 4, 2, 1]
    for step in block.steps:
        x = torch.randn(2, step.inputs, 3, dtype=torch.float64)
        dense = torch.block_diag(*step.matrix().chunk(step.groups))
        close(step.convolve(x), dense @ x + step.bias[:, None])


def test_the_run_of_grouped_matrices_by_hand() -> None:
    """Four layers of 1, 2, 2, 1 groups: shuffle and mix written as indices."""
    block, x = layer("delight[layers=4,groups=4]").block, row()
    one, two, three, four = ((step.matrix(), step.bias) for step in block.steps)

    def run(step: tuple[Tensor, Tensor], x: Tensor, groups: int) -> Tensor:
        return x @ torch.block_diag(*step[0].chunk(groups)).T + step[1]

    def halves(y: Tensor, shuffled: bool) -> Tensor:
        """Two groups of y, the first half of x behind the first and the second behind the second."""
        y = F.gelu(y)
        a, b = y.chunk(2, dim=-1)
        if shuffled:
            y = torch.stack((a, b), dim=-1).flatten(-2)
            a, b = y.chunk(2, dim=-1)
        return torch.cat((a, x[..., :4], b, x[..., 4:]), dim=-1)

    y = run(one, x, 1)
    y = run(two, halves(y, shuffled=False), 2)
    y = run(three, halves(y, shuffled=True), 2)
    a, b = F.gelu(y).chunk(2, dim=-1)
    y = run(four, torch.cat((torch.stack((a, b), dim=-1).flatten(-2), x), dim=-1), 1)
    q, k, v = block.query(y), block.key(y), block.value(y)
    close(block(x), block.out((q @ k.mT / 2).softmax(dim=-1) @ v))


def test_delight_blocks_grow_from_the_shortest_to_the_longest() -> None:
    spec = read_spec("delight[blocks=5,shortest=4,longest=8,widen=2.0,dim=16]")
    layers = spec.stages[0].layers
    blocks = [each.block.settings for each in layers[::2]]
    assert [block["layers"] for block in blocks] == [4, 5, 6, 7, 8]
    assert [block["widen"] for block in blocks] == pytest.approx([2 + 4 * b / (4 * 4) for b in range(5)])
    assert all(each.block.settings["hidden"] == 4 for each in layers[1::2])
    made = empty(spec).stages[0].layers
    attention, small = 2, 2  # query, key and value side by side, then out; up and down
    depth = sum(len(each.block.steps) + attention + small for each in made[::2])
    assert depth == sum(block["layers"] + 4 for block in blocks) == 50
    alike = read_spec("delight[blocks=3,shortest=4,longest=4]").stages[0].layers
    assert len(set(alike)) == 2
    assert read_spec("delight[blocks=1]").stages[0].layers[0].block.settings["layers"] == 4


def test_delight_with_groups_is_costed_and_gives_zero_from_zero_weights() -> None:
    made = layer("delight[layers=5,groups=4]")
    require_costed(made, row())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    assert not made(row()).any()


def test_delight_has_fewer_weights_than_a_transformer_of_its_width() -> None:
    light, plain = count("delight[dim=128,blocks=4]"), count("transformer[dim=128,layers=4]")
    assert light < plain


# ---- WideNet


def test_widenets_weights_do_not_grow_with_its_layers_but_for_the_norms() -> None:
    sizes = f"{IMAGE},dim=8,heads=2,outputs=3"
    counts = [count(f"widenet[{sizes},layers={layers}]") for layers in (1, 2, 5)]
    assert [each - counts[0] for each in counts] == [0, 4 * 8, 4 * 4 * 8]
    tied = [count(f"widenet[{sizes},layers={layers},own_norms=false]") for layers in (1, 2, 5)]
    assert set(tied) == {counts[0]}


def test_widenet_of_one_layer_is_attention_and_experts() -> None:
    once = net(f"widenet[{IMAGE},dim=8,heads=2,layers=1,outputs=3]")
    text = "residual(attention[heads=2], moe) 2x8"
    stem, head = (str(part) for part in (once.spec.stem, once.spec.head))
    plain = Net(Spec.parse(f"{stem} | {text} | {head}")).double().eval()
    plain.load_state_dict(once.state_dict())
    assert torch.equal(once(image()), plain(image()))


def test_widenet_is_a_stack_of_equal_layers_with_other_norms() -> None:
    wide = net(f"widenet[{IMAGE},dim=8,heads=2,layers=3,outputs=3]")
    stem, head = (str(part) for part in (wide.spec.stem, wide.spec.head))
    free = Net(Spec.parse(f"{stem} | residual({', '.join(['attention[heads=2], moe'] * 3)}) 6x8 | {head}")).double()
    shared, weights = wide.stages[0].layers, {}
    for step, each in enumerate(free.stages[0].layers):
        each.block.load_state_dict(shared[step % 2].block.state_dict())
        each.norm.load_state_dict(shared[step % 2].norm.each[step // 2].state_dict())
        weights[step] = each.norm.weight
    assert not torch.equal(weights[0], weights[2])
    free.stem.load_state_dict(wide.stem.state_dict())
    free.head.load_state_dict(wide.head.state_dict())
    close(wide(image()), free.eval()(image()))


def test_widenet_with_shared_norms_is_a_loop() -> None:
    tied = net(f"widenet[{IMAGE},dim=8,heads=2,layers=3,outputs=3,own_norms=false]")
    stem, head = (str(part) for part in (tied.spec.stem, tied.spec.head))
    looped = Net(Spec.parse(f"{stem} | looped[times=3](attention[heads=2], moe) 2x8 | {head}")).double().eval()
    looped.load_state_dict(tied.state_dict())
    assert torch.equal(tied(image()), looped(image()))


# ---- the rest of the house takes them


@pytest.mark.parametrize("block", ["token_mixing", "token_linear", "class_attention", "class_mlp", "talking_heads"])
def test_blocks_of_tokens_take_places_in_a_row_or_on_a_grid(block: str) -> None:
    made = Layer(LayerSpec(Part(block, BLOCKS.get(block).tiny)), 8, 8).double().eval()
    grid = torch.randn(2, 4, 3, 8, dtype=torch.float64)
    close(made(grid).flatten(1, 2), made(grid.flatten(1, 2)))


@pytest.mark.parametrize("block", ["token_mixing norm=none", "class_attention[heads=2]", "class_mlp"])
def test_layers_side_by_side_become_one_exactly(block: str) -> None:
    made = net(f"{ROWS} | grouped[size=2]({block}) 2x8 | pool[outputs=3]")
    merge = Merge(paths=("stages.0.layers.0", "stages.0.layers.1"))
    spec, weights = merge.rewrite(made.spec, made.state_dict())
    assert len(spec.stages[0].layers) == 1
    close(load_net(spec, weights)(row()), made(row()))


def test_named_nets_all_have_a_small_form() -> None:
    for name in ("vit", "mixer", "resmlp", "cait", "widenet", "delight", "transformer", "wide_attention"):
        spec: Callable[[], Spec] = NETS.make(Part(name, NETS.get(name).tiny)).spec
        assert sum(weight.numel() for weight in empty(spec()).parameters()) < 10_000


def test_affine_of_a_norm_without_statistics() -> None:
    norm = NORMS.make(Part("affine"), 8, dim=8).double()
    with torch.no_grad():
        norm.weight.uniform_()
        norm.bias.uniform_()
    close(norm(row()), row() * norm.weight + norm.bias)
    close(norm(row()).mean() - norm(row() + 1).mean(), -norm.weight.mean())
