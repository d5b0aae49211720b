"""Small networks of every family, as strangers write them, each with tiny data: what `compress` is tried on.

None is written for it. Those of `strangers` and `coupled_strangers` are used where they take one tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coupled_strangers import (
    ByHand,
    DenseCat,
    Enlarged,
    FusedAttention,
    PlainCNN,
    Raw,
    Recurrent,
    Separable,
    SharedKeys,
    ShuffleUnit,
    Splines,
    TextCNN,
    Tied,
    TokenModel,
    TorchAttention,
    UNet,
)
from families_images import (
    VAE,
    VGG,
    AlexNet,
    Autoencoder,
    ConvNeXt,
    DenseNet,
    Highway,
    bottlenecks,
    inception,
    lenet,
    mobilenet,
    mobilenet_v2,
    repvgg,
    shufflenet,
    squeezenet,
)
from families_odd import (
    Bags,
    Binary,
    Capsules,
    Codebook,
    ConvLSTM,
    Copying,
    Film,
    Frozen,
    Generator,
    Hyper,
    Ode,
    OldNorm,
    Projected,
    Scripted,
    Swin,
    Video,
)
from families_rows import (
    DeepSets,
    Experts,
    GraphClassifier,
    Halting,
    KANLayer,
    Looped,
    Named,
    Pair,
    PointNet,
    ResidualMLP,
    SelfNormed,
    Siamese,
    Siren,
    TwoTowers,
    mlp,
)
from families_sequences import (
    DISTIL,
    FNO,
    GPT2,
    SIZES,
    T5,
    TCN,
    TEXT,
    CellLoop,
    FNet,
    LinearAttention,
    MLPMixer,
    NextWord,
    Perceiver,
    Pooled,
    RawTransformer,
    SharedLayers,
    StackedLSTM,
    TorchTransformer,
    WaveNet,
    gmlp,
    hugging,
)
from strangers import Encoder, TinyResNet

ROWS = 80


def classes(*shape: int, of: int = 3) -> tuple[Tensor, Tensor]:
    """Rows of numbers and the classes that a random projection puts them in."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, *shape, generator=draw)
    return x, (x.flatten(1) @ torch.randn(x[0].numel(), of, generator=draw)).argmax(1)


def words(length: int, vocabulary: int = 11, of: int = 3) -> tuple[Tensor, Tensor]:
    """Rows of tokens, and the classes of their sums."""
    x = torch.randint(1, vocabulary, (ROWS, length), generator=torch.Generator().manual_seed(1))
    return x, x.sum(1) % of


def numbers(*shape: int) -> Tensor:
    """Rows alone: what the network answers is asked for."""
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(1))


def values(*shape: int) -> tuple[Tensor, Tensor]:
    """Rows with two numbers to be foretold."""
    x = numbers(*shape)
    return x, torch.stack([x.flatten(1).mean(1), x.flatten(1)[:, 0].sin()], dim=1)


@dataclass(frozen=True)
class Family:
    """How a network is made, its data, the goals that it is tried with; ``refused``: what it then says;
    ``exports``: whether torch can write it as a graph."""

    make: Callable[[], nn.Module]
    data: Callable[[], Any]
    goals: tuple[str, ...] = ("params<=70%",)
    refused: str = ""
    exports: bool = True


def masked() -> tuple[dict[str, Tensor], Tensor]:
    """Words by the names of a model's arguments, the ends of some rows masked, and classes."""
    x, y = words(7)
    lengths = 4 + torch.arange(ROWS) % 4
    return {"input_ids": x, "attention_mask": (torch.arange(7) < lengths.unsqueeze(1)).long()}, y


def masked_words() -> dict[str, Tensor]:
    return masked()[0]


def named_words() -> dict[str, Tensor]:
    """Words by name, and nothing that is asked for."""
    return {"input_ids": words(7)[0]}


IMAGE = (3, 8, 8)
SHALLOW = ("params<=70%", "depth<=70%")


def images() -> tuple[Tensor, Tensor]:
    return classes(*IMAGE)


def table() -> tuple[Tensor, Tensor]:
    return classes(10)


def sequence() -> tuple[Tensor, Tensor]:
    return classes(6, 4)


FAMILIES: dict[str, Family] = {
    "lenet": Family(lenet, lambda: classes(1, 8, 8)),
    "vgg": Family(VGG, images),
    "alexnet": Family(AlexNet, images),
    "plain cnn": Family(PlainCNN, lambda: classes(*IMAGE, of=5)),
    "mobilenet": Family(mobilenet, images),
    "mobilenet v2": Family(mobilenet_v2, images),
    "separable": Family(Separable, images),
    "shufflenet": Family(shufflenet, images),
    "shufflenet v2": Family(ShuffleUnit, lambda: numbers(3, 4, 4)),
    "densenet": Family(DenseNet, images),
    "dense cat": Family(DenseCat, lambda: classes(*IMAGE, of=5)),
    "inception": Family(inception, images),
    "squeezenet": Family(squeezenet, images),
    "resnet": Family(lambda: TinyResNet(2), lambda: classes(1, 8, 8, of=10), SHALLOW),
    "resnet, bottlenecks": Family(bottlenecks, images),
    "resnext": Family(lambda: bottlenecks(groups=4), images),
    "se net": Family(lambda: bottlenecks(gate=True), images),
    "convnext": Family(ConvNeXt, images, SHALLOW),
    "repvgg": Family(repvgg, images),
    "unet": Family(UNet, lambda: numbers(*IMAGE)),
    "enlarged": Family(Enlarged, lambda: numbers(3, 4, 4)),
    "autoencoder": Family(Autoencoder, lambda: numbers(1, 8, 8)),
    "vae": Family(VAE, lambda: numbers(10)),
    "logistic": Family(lambda: nn.Linear(10, 3), table, refused="nothing was found"),
    "mlp": Family(mlp, table),
    "residual mlp": Family(ResidualMLP, table),
    "highway": Family(
        lambda: nn.Sequential(nn.Linear(10, 12), *(Highway(12) for _ in range(4)), nn.Linear(12, 3)), table
    ),
    "selu": Family(SelfNormed, table),
    "siren": Family(Siren, lambda: values(10)),
    "raw": Family(Raw, lambda: classes(5)),
    "tied": Family(Tied, lambda: numbers(5)),
    "deep sets": Family(DeepSets, sequence),
    "point net": Family(PointNet, sequence),
    "siamese": Family(Siamese, lambda: classes(2, 8)),
    "two towers": Family(TwoTowers, lambda: words(2)),
    "experts": Family(Experts, table),
    "kan": Family(lambda: nn.Sequential(Splines(4, 10), Splines(10, 10), Splines(10, 3)), lambda: classes(4)),
    "kan, pykan": Family(
        lambda: nn.Sequential(KANLayer(4, 10), KANLayer(10, 10), KANLayer(10, 3)), lambda: classes(4)
    ),
    "tcn": Family(TCN, lambda: classes(8, 3)),
    "wavenet": Family(WaveNet, lambda: classes(8, 3)),
    "text cnn": Family(TextCNN, lambda: words(9, 20, of=2)),
    "rnn": Family(lambda: Recurrent(nn.RNN), lambda: classes(6, 5)),
    "lstm": Family(lambda: Recurrent(nn.LSTM), lambda: classes(6, 5)),
    "gru": Family(lambda: Recurrent(nn.GRU), lambda: classes(6, 5)),
    "lstm, both ways, stacked": Family(lambda: Recurrent(nn.LSTM, 2, True), lambda: classes(6, 5)),
    "lstm, stacked with skips": Family(StackedLSTM, lambda: words(6), refused="nothing was found"),
    "lstm by hand": Family(ByHand, lambda: classes(6, 5)),
    "gru cell": Family(CellLoop, lambda: classes(6, 5), refused="nothing was found"),
    "gru, language": Family(NextWord, lambda: (words(7)[0][:, :-1], words(7)[0][:, 1:])),
    "mixer": Family(MLPMixer, images, SHALLOW),
    "gmlp": Family(gmlp, sequence),
    "fno": Family(FNO, lambda: numbers(12, 2)),
    "fnet": Family(lambda: Pooled(nn.Sequential(nn.Linear(4, 12), FNet(), FNet(), FNet()), 12), sequence),
    "linear attention": Family(
        lambda: Pooled(nn.Sequential(nn.Linear(4, 12), *(LinearAttention() for _ in range(3))), 12), sequence
    ),
    "fused attention": Family(
        lambda: Pooled(nn.Sequential(nn.Linear(4, 12), FusedAttention("view"), FusedAttention("chunk")), 12), sequence
    ),
    "shared keys": Family(
        lambda: Pooled(nn.Sequential(nn.Linear(4, 12), SharedKeys(False), SharedKeys(True)), 12), sequence
    ),
    "torch attention": Family(
        lambda: Pooled(nn.Sequential(nn.Linear(4, 12), *(TorchAttention() for _ in range(3))), 12), sequence
    ),
    "perceiver": Family(Perceiver, sequence),
    "torch encoder": Family(TokenModel, lambda: (words(8)[0][:, :-1], words(8)[0][:, 1:]), SHALLOW),
    "torch transformer": Family(TorchTransformer, sequence),
    "encoder by hand": Family(
        lambda: Pooled(nn.Sequential(nn.Linear(4, 12), *(Encoder(12) for _ in range(3))), 12), sequence
    ),
    "raw transformer": Family(RawTransformer, sequence),
    "looped": Family(Looped, table),
    "shared layers": Family(SharedLayers, sequence),
    "halting": Family(Halting, table, exports=False),
    "swin": Family(Swin, images),
    "video": Family(Video, lambda: classes(1, 4, 4, 4)),
    "generator": Family(Generator, lambda: numbers(6)),
    "weights normed in the old way": Family(OldNorm, table),
    "binary": Family(Binary, table),
    "codebook": Family(Codebook, table),
    "ode": Family(Ode, table),
    "hyper": Family(Hyper, table),
    "film": Family(Film, images),
    "conv lstm": Family(ConvLSTM, lambda: classes(3, 5, 5)),
    "bags": Family(Bags, lambda: words(6)),
    "capsules": Family(Capsules, table, refused="nothing was found"),
    "scripted": Family(Scripted, table, refused="is a script of torch.jit"),
    "frozen": Family(Frozen, images),
    "packed": Family(Projected, lambda: words(7), exports=False),
    "keeps what it saw": Family(Copying, table),
    "selu, no targets": Family(SelfNormed, lambda: numbers(10)),
    "named answers": Family(Named, table),
    "two answers": Family(Pair, table),
    "gcn": Family(lambda: GraphClassifier("GCNConv"), sequence),
    "sage": Family(lambda: GraphClassifier("SAGEConv"), sequence),
    "gat": Family(lambda: GraphClassifier("GATConv", heads=3), sequence),
    "gin": Family(lambda: GraphClassifier("GINConv"), sequence),
    "bert": Family(
        hugging("BertForSequenceClassification", "BertConfig", num_labels=3, **SIZES, **TEXT), masked, SHALLOW
    ),
    "roberta": Family(hugging("RobertaForMaskedLM", "RobertaConfig", **SIZES, **TEXT), named_words),
    "distilbert": Family(
        hugging("DistilBertForSequenceClassification", "DistilBertConfig", vocab_size=11, **DISTIL), masked
    ),
    "gpt-2": Family(
        hugging("GPT2LMHeadModel", "GPT2Config", bos_token_id=0, eos_token_id=0, **GPT2), named_words
    ),
    "llama": Family(
        hugging("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=3, **SIZES, **TEXT), named_words
    ),
    "qwen2": Family(hugging("Qwen2Model", "Qwen2Config", num_key_value_heads=1, **SIZES, **TEXT), named_words),
    "mixtral": Family(
        hugging("MixtralModel", "MixtralConfig", num_key_value_heads=3, num_local_experts=2, num_experts_per_tok=1,
                **SIZES, **TEXT),
        named_words, exports=False,
    ),
    "vit": Family(
        hugging("ViTForImageClassification", "ViTConfig", image_size=8, patch_size=4, num_labels=3, **SIZES),
        images,
    ),
    "t5 encoder": Family(hugging("T5EncoderModel", "T5Config", **T5), masked_words),
}  # fmt: skip
