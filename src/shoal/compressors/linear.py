"""Linear: spans become their best linear maps, neighbours one map together.

    y = A x + b,    A, b = argmin sum |A x + b - f(x)|^2 + ridge |A|^2        every place a row, all channels together

The map stands on the stream that passes it by: what it is fitted to is what the span adds. Two neighbours that are
linear already are one map exactly.

A map that explains little of what a span does is not proposed: it may cost little at once, but healing cannot give it
back what the span could do.

Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from shoal.compressors._best_map import best_map
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting, Refused
from shoal.core.scene import Flow, Scene, rows_of
from shoal.core.spans import Span, Visit
from shoal.core.spec import Stage, wiring_of
from shoal.edits._spans import LinearSpan
from shoal.edits.linearize import Linearize
from shoal.kinds import BLOCKS
from shoal.net import Net
from shoal.recipe import rewritten

log = logging.getLogger("shoal")
Run = tuple[Span, ...]


class Linear(Compressor):
    """Settings: `ridge`, added to the diagonal of the squares, as a share of their mean; `explains`, the share of the
    variance of what a span adds that its map has to explain, 0 to propose every map."""

    def __init__(self, *, ridge: float = 1e-4, explains: float = 0.5) -> None:
        if ridge < 0:
            raise BadSetting(f"compressor linear: ridge={ridge} is negative; give 0 or more")
        if not 0 <= explains <= 1:
            raise BadSetting(f"compressor linear: explains={explains} must be a share, from 0 to 1")
        self.ridge, self.explains = ridge, explains

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        net = scene.module if isinstance(scene.module, Net) else None
        runs = [run for run in _runs(scene) if net is None or _possible(net, _edit(run, net))]
        dtype = next((p.dtype for p in scene.module.parameters() if p.is_floating_point()), torch.float32)
        for run, (fit, explained) in zip(runs, _fits(scene, runs, self.ridge), strict=True):
            paths, edit = tuple(span.path for span in run), _edit(run, net)
            if explained < self.explains:
                log.info("%s: not proposed: its map explains %.0f%% of it", ", ".join(paths), 100 * explained)
                continue
            at = f"{paths[0]}.block.map" if net is not None else f"{paths[0]}.map"
            weight = fit[:-1].T.to(dtype)
            if edit.places:
                weight = weight.reshape(*weight.shape, *(1 for _ in range(edit.places)))
            yield Proposal((edit,), paths, paths[0], {f"{at}.weight": weight, f"{at}.bias": fit[-1].to(dtype)})


def _edit(run: Run, net: Net | None) -> Linearize:
    paths, shape = tuple(span.path for span in run), run[0].shape
    if net is not None:
        return Linearize(paths=paths)
    places = len(shape) - 2 if run[0].axis == 1 else 0
    return Linearize(paths=paths, channels=shape[run[0].axis], places=places, branch=run[0].branch)


def _possible(net: Net, edit: Linearize) -> bool:
    try:
        rewritten(net, (edit,))
    except Refused as why:
        log.info("%s: not proposed: %s", ", ".join(edit.paths), why)
        return False
    return True


def _runs(scene: Scene) -> list[Run]:
    """Each span that is no linear map yet, and each two neighbours of which the second reads what the first leaves."""
    seen = {span.at for span in scene.spans}
    spans = {span.path: span for span in scene.anatomy.spans if span.at in seen}
    pairs = dict(_pairs(scene))
    runs: list[Run] = []
    for path, span in spans.items():
        if not isinstance(scene.module.get_submodule(path), LinearSpan) and not _is_linear(scene.module, path):
            runs.append((span,))
        if pairs.get(path) in spans:
            runs.append((span, spans[pairs[path]]))
    return runs


def _pairs(scene: Scene) -> Iterator[tuple[str, str]]:
    if not isinstance(scene.module, Net):
        for chain in scene.anatomy.chains:
            yield from pairwise(chain)
        return
    for index, stage in enumerate(scene.module.spec.stages):
        summed = wiring_of(stage.wiring, stage.dim, stage.depth).groups()
        groups = summed or ([1] * stage.depth if _is_plain(stage) else [])
        single = [sum(groups[:at]) for at, size in enumerate(groups) if size == 1]
        for layer in single:
            if layer + 1 in single:
                yield f"stages.{index}.layers.{layer}", f"stages.{index}.layers.{layer + 1}"


def _is_linear(module: nn.Module, path: str) -> bool:
    block = getattr(module.get_submodule(path), "block", None) if isinstance(module, Net) else None
    return isinstance(block, BLOCKS.get("channel_linear"))


def _fits(scene: Scene, runs: list[Run], ridge: float) -> list[tuple[Tensor, float]]:
    """(channels + 1, channels) of every run: its map and, last, its shift, by least squares over all rows; and the
    share of the variance that they explain."""
    sizes = [run[0].shape[run[0].axis] for run in runs]
    squares = [torch.zeros(size + 1, size + 1, dtype=torch.float64) for size in sizes]
    products = [torch.zeros(size + 1, size, dtype=torch.float64) for size in sizes]
    wanted = torch.zeros(len(runs), dtype=torch.float64)
    for _, _, flows in scene.every_flow() if runs else ():
        for i, (run, square, product) in enumerate(zip(runs, squares, products, strict=True)):
            x = rows_of(flows[run[0].at].given, run[0].axis).double().cpu()
            y = rows_of(_added(run, flows, scene.module), run[0].axis).double().cpu()
            x = torch.cat((x, x.new_ones(len(x), 1)), dim=1)
            square += x.T @ x
            product += x.T @ y
            wanted[i] += y.square().sum()
    return [best_map(*of_run, ridge) for of_run in zip(squares, products, wanted.tolist(), strict=True)]


def _added(run: Run, flows: Mapping[Visit, Flow], module: nn.Module) -> Tensor:
    """What the map has to give: all that a span does where somebody else adds it, else what it adds to what comes in.

    In a Net a layer is always added, or stands in a plain stage, where nothing is.
    """
    first, last = flows[run[0].at], flows[run[-1].at]
    if isinstance(module, Net):
        summed = len(run) > 1 and not _is_plain(module.spec.stages[int(run[0].path.split(".")[1])])
        return last.given + last.made - first.given if summed else last.made
    return last.made if run[0].branch else last.made - first.given


def _is_plain(stage: Stage) -> bool:
    """Whether each layer reads what the one before gave, and nothing else."""
    rows = wiring_of(stage.wiring, stage.dim, stage.depth).reads()
    return all(row == {step} for step, row in enumerate(rows))
