"""Training within low rank: W = U S V^T with orthonormal U and V, moved by three small steps whose rank adapts.

    K = U S,  K' = K - lr dL/dK at W = K V^T             U' = orthonormal basis of [K' | U]
    L = V S^T, L' = L - lr dL/dL at W = U L^T            V' = orthonormal basis of [L' | V]
    S' = (U'^T U) S (V'^T V)^T, then a step of lr        at W = U' S' V'^T
    cut: the fewest singular values of S' whose rest is at most theta |S'|

No step divides by a singular value, so small ones do no harm. With a fixed rank the bases are those of K' and L' alone,
and nothing is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Loss: TypeAlias = Callable[[Mapping[str, Tensor]], Tensor]  # weights by name -> a scalar to go down


@dataclass(frozen=True)
class Factors:
    """U (rows, r), S (r, r) and V (columns, r)."""

    u: Tensor
    s: Tensor
    v: Tensor

    @property
    def rank(self) -> int:
        """r."""
        return int(self.s.shape[0])

    def matrix(self) -> Tensor:
        """(rows, columns)."""
        return self.u @ self.s @ self.v.T


def factored(matrix: Tensor, theta: float) -> Factors:
    """The factors of a matrix, cut at theta."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return truncated(Factors(left, torch.diag(values), right.T), theta)


def truncated(factors: Factors, theta: float) -> Factors:
    """The fewest directions such that what is left out is at most theta times the whole; at least one."""
    left, values, right = torch.linalg.svd(factors.s)
    tails = values.square().flip(0).cumsum(0).flip(0).sqrt()  # the norm of what goes where so many are kept
    rank = max(1, int((tails > theta * tails[0]).sum()))
    return Factors(factors.u @ left[:, :rank], torch.diag(values[:rank]), factors.v @ right[:rank].T)


def augmented(factors: Factors, k: Tensor, left: Tensor) -> Factors:
    """The same matrix in bases that hold, beside the old ones, where the K- and the L-step went."""
    u, v = (torch.linalg.qr(torch.cat(pair, dim=1)).Q for pair in ((k, factors.u), (left, factors.v)))
    return _projected(factors, u, v)


def stepped(
    factors: Mapping[str, Factors],
    others: Mapping[str, Tensor],
    loss: Loss,
    lr: float,
    theta: float | None,
) -> tuple[dict[str, Factors], dict[str, Tensor]]:
    """One step of all matrices together; the other weights move with S. ``theta`` None keeps every rank as it is.

    The loss is asked three times, each time for a gradient.
    """
    ks = _moved({n: one.u @ one.s for n, one in factors.items()}, lambda n, x: x @ factors[n].v.T, others, loss, lr)
    ls = _moved({n: one.v @ one.s.T for n, one in factors.items()}, lambda n, x: factors[n].u @ x.T, others, loss, lr)
    bases: dict[str, Factors] = {}
    for name, one in factors.items():
        if theta is None:
            bases[name] = _projected(one, torch.linalg.qr(ks[name]).Q, torch.linalg.qr(ls[name]).Q)
        else:
            bases[name] = augmented(one, ks[name], ls[name])
    inner = {name: one.s for name, one in bases.items()}
    last = _moved({**inner, **others}, lambda n, x: _within(bases.get(n), x), {}, loss, lr)
    found = {name: Factors(one.u, last[name], one.v) for name, one in bases.items()}
    if theta is not None:
        found = {name: truncated(one, theta) for name, one in found.items()}
    return found, {name: last[name] for name in others}


def _projected(factors: Factors, u: Tensor, v: Tensor) -> Factors:
    """The matrix in other orthonormal bases: the nearest to it that they can say."""
    return Factors(u, (u.T @ factors.u) @ factors.s @ (v.T @ factors.v).T, v)


def _within(bases: Factors | None, s: Tensor) -> Tensor:
    """The matrix that S stands for in its bases; where there are none, it is the weight itself."""
    return s if bases is None else bases.u @ s @ bases.v.T


def _moved(
    moving: Mapping[str, Tensor],
    weight: Callable[[str, Tensor], Tensor],
    still: Mapping[str, Tensor],
    loss: Loss,
    lr: float,
) -> dict[str, Tensor]:
    """A step of gradient descent on what moves, each of which stands for a weight; the others are held still."""
    leaves = {name: value.detach().requires_grad_() for name, value in moving.items()}
    value = loss({**still, **{name: weight(name, leaf) for name, leaf in leaves.items()}})
    slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), slopes, strict=True)
    return {name: leaf.detach() if slope is None else (leaf - lr * slope).detach() for (name, leaf), slope in pairs}
