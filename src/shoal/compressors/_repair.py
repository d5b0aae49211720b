"""Repair: what a span that took the place of others gives is drawn to what they gave, by its last matrix alone.

    min over W, b of   sum over rows |b + W h - (y - x)|^2 + ridge |W - W_0|^2

h is what the matrix reads, x what went into the first of the spans and y what came out of the last. A norm behind the
matrix is set to pass that on: in eval it changes nothing. Kept only where the span as a whole comes nearer to y, which
is seen on rows that were not fitted on: a span may do more behind its sum than a ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shoal.compressors._lasso import refitted, squares
from shoal.compressors._products import patches
from shoal.core.example import evaluating
from shoal.core.scene import Flow, Scene

RIDGE = 1e-3
FITTED = 0.75  # of the rows; the others judge
WIDEST = 1536  # columns of a matrix: to fit more takes longer than it is worth


def flows_of(scene: Scene, paths: Sequence[str]) -> dict[str, Flow]:
    """What went into spans and came out of them, over all batches; of a span that runs often, the first time."""
    found: dict[str, list[Flow]] = {path: [] for path in paths}
    for _, _, flows in scene.every_flow():
        for visit, flow in flows.items():
            if visit.path in found and visit.number == 0:
                found[visit.path].append(Flow(flow.given.clone(), flow.made.clone()))
    return {
        path: Flow(torch.cat([one.given for one in each]), torch.cat([one.made for one in each]))
        for path, each in found.items()
        if each
    }


def repaired(
    wide: nn.Module, reader: str, norm: str | None, x: Tensor, y: Tensor, rows: int, seed: int
) -> Mapping[str, Tensor]:
    """Values to set in the span, by names within it; none where they would not bring it nearer. ``rows``: places of
    examples that are fitted on; more where the matrix has many columns."""
    part, read = wide.get_submodule(reader), list[Tensor]()
    columns = part.weight[0].numel()  # type: ignore[index]
    if columns > WIDEST:
        return {}
    cut = max(int(FITTED * len(x)), 1)
    hook = part.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    try:
        with evaluating(wide), torch.no_grad():
            wide(x[:cut])
    finally:
        hook.remove()
    h, wanted = read[0], _rows(y[:cut] - x[:cut], part)
    chosen = torch.randperm(len(wanted), generator=torch.Generator().manual_seed(seed))[: max(rows, 2 * columns)]
    fitted = _fitted(part, None if norm is None else wide.get_submodule(norm), h, wanted, chosen)
    if fitted is None:
        return {}
    names = {"matrix": reader, "norm": norm}
    values = {f"{names[place]}.{name}": value for (place, name), value in fitted.items()}
    return values if _gap(wide, values, x[cut:], y[cut:]) < _gap(wide, {}, x[cut:], y[cut:]) else {}


def _rows(y: Tensor, part: nn.Module) -> Tensor:
    """(rows, outputs): channels last."""
    return (y if isinstance(part, nn.Linear) else y.movedim(1, -1)).flatten(0, -2)


def _fitted(part: Any, norm: Any, h: Tensor, wanted: Tensor, chosen: Tensor) -> dict[tuple[str, str], Tensor] | None:
    """The values of the matrix and of the norm behind it; None where the two cannot say them."""
    if norm is None and part.bias is None:
        return None
    if isinstance(part, nn.Linear):
        x = h.flatten(0, -2)[chosen]
    elif part.padding_mode == "zeros" and not isinstance(part.padding, str):
        x = patches(h, part.weight, chosen, part.stride, part.padding, part.dilation).flatten(1)
    else:
        return None
    found = squares(x, wanted[chosen], centred=True)
    flat = part.weight.detach().flatten(1)
    new = refitted(found, flat, torch.arange(flat.shape[1]), RIDGE)
    shift, weight = found.y - new @ found.x, part.weight
    values = {("matrix", "weight"): new.reshape(weight.shape).to(weight)}
    if norm is None:
        return {**values, ("matrix", "bias"): shift.to(weight)}
    mean, variance = new @ found.x, ((new @ found.xx) * new).sum(dim=1).clamp_min(0)
    if part.bias is not None:
        values["matrix", "bias"] = torch.zeros_like(part.bias)
    values["norm", "weight"] = torch.sqrt(variance + norm.eps).to(weight)
    values["norm", "bias"] = (shift + mean).to(weight)
    values["norm", "running_mean"], values["norm", "running_var"] = mean.to(weight), variance.to(weight)
    return values


def _gap(wide: nn.Module, values: Mapping[str, Tensor], x: Tensor, y: Tensor) -> float:
    """How far what the span gives is from y, with some of its values replaced; infinite where it gives no number."""
    with evaluating(wide), torch.no_grad():
        made = torch.func.functional_call(wide, dict(values), (x,)) if values else wide(x)
    gap = float((made - y).square().sum())
    return gap if gap == gap else float("inf")
