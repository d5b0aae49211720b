"""Distil BiLSTM: a text network becomes one layer of LSTM in both directions that learns its outputs.

    tokens | plain(bilstm norm=none) 1 x dim | ends[hidden]        weights of its own

It is proposed for whatever reads a row of tokens and gives one answer. The objective `logit_mse` teaches it, best on
many rows: with a ``token`` to hide words with, it makes more of those there are. Pairs of sentences are read as the one
row they come in, and words are not replaced by others of their kind.

Papers   distilling-task-specific-knowledge-from-bert
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from shoal.compressors._lessons import lessons
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.core.scene import Scene
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.edits.replace import Replace
from shoal.net import Net

log = logging.getLogger("shoal")


class DistilBiLSTM(Compressor):
    """Settings: `dim`, of the tokens and of both directions together, even; `hidden`, units before the outputs."""

    objective: ClassVar[str | None] = "logit_mse"
    known = {"proposals_can_be_done": "it is for rows of tokens, and neither probe reads tokens"}

    def __init__(self, *, dim: int = 300, hidden: int = 200) -> None:
        if dim < 2 or dim % 2 or hidden < 1:
            raise BadSetting(
                f"compressor distil_bilstm: dim={dim}, hidden={hidden}; give an even dim and a unit at least"
            )
        self.dim, self.hidden = dim, hidden

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        module, example = scene.module, scene.batches[0].example
        vocabulary = _vocabulary(module)
        if vocabulary is None or not _tokens(example) or not scene.anatomy.spans:
            log.info("distil_bilstm: %s reads no row of tokens, so nothing is proposed", type(module).__name__)
            return
        outputs = lessons(scene.head(2))[0].wanted.shape
        if len(outputs) != 2:
            log.info("distil_bilstm: %s answers at every place, and a BiLSTM once", type(module).__name__)
            return
        student = self.student(vocabulary, example.shape[1], outputs[1])
        yield Proposal((Replace(path="", spec=str(student)),), tuple(span.path for span in scene.anatomy.spans))

    def student(self, vocabulary: int, length: int, outputs: int) -> Spec:
        """The student for such rows."""
        stage = Stage(Part("plain"), (LayerSpec(Part("bilstm"), Part("none")),), self.dim)
        stem = Part("tokens", {"vocabulary": vocabulary, "length": length})
        return Spec((stage,), stem, Part("ends", {"outputs": outputs, "hidden": self.hidden}))


def _vocabulary(module: nn.Module) -> int | None:
    """How many tokens there are: what a Net's stem says, else the size of the largest table."""
    if isinstance(module, Net):
        assert module.spec.stem is not None
        said = module.spec.stem.settings.get("vocabulary")
        return said if isinstance(said, int) else None
    tables = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    return max(tables, default=None)


def _tokens(example: object) -> bool:
    """Whether that is rows of whole numbers."""
    return isinstance(example, Tensor) and example.dim() == 2 and example.dtype in (torch.int32, torch.int64)
