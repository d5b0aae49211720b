"""KAN: a learned function on every edge, a spline and a SiLU, and sums at the nodes.

    y_o = sum_i  base_oi silu(x_i) + sum_m spline_omi B_m(x_i)        B: B-splines on a uniform grid of each input's own

The splines are computed in matrix form, without recursion over the degree: each input falls into one interval, and the
powers of its offset there times one small matrix are the functions that are not zero. Beyond its grid a spline fades to
zero over `degree` intervals. The scales that the paper gives the edges are part of the coefficients here.

Shapes   x, y: (batch, *places, dim);  within: (batch, *places, dim * (grid + degree))
Cost     (grid + degree + 1) * dim^2 multiply-adds a place, as many weights (dense linears), and (degree + 1)^2 * dim
Exact when fitted to a KAN whose grid it holds: the same function within that grid
Papers   kan-kolmogorov-arnold-networks, matrixkan-parallelized-kolmogorov-arnold-network
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.blocks._spline import basis, numerators, places
from shoal.core.base import Block, MakeLinear
from shoal.core.errors import BadModel, BadSetting

HIGHEST = 10  # degree; above it float32 has too few digits for the powers' coefficients


class KAN(Block):
    """Settings: `grid`, intervals of each input's grid (5 where not said); `degree` of the splines; `reach`: the grid
    begins as -reach to reach, and `cover` moves it to where the inputs are."""

    outlets = ("base", "spline")
    sizes = {"grid": lambda dim, _: 5}
    tiny = {"grid": 3, "degree": 2}
    low: Tensor
    step: Tensor
    matrix: Tensor
    places: Tensor

    def __init__(
        self, dim: int, linear: MakeLinear, out: int, *, grid: int | None = None, degree: int = 3, reach: float = 2.0
    ) -> None:
        super().__init__()
        grid = self.size("grid", grid, out)
        if not 0 <= degree <= HIGHEST:
            raise BadSetting(f"block kan: degree={degree} is not computed here; give 0 to {HIGHEST}")
        if not reach > 0:
            raise BadSetting(f"block kan: reach={reach} leaves no room for a grid; give a number above 0")
        self.grid, self.degree = grid, degree
        self.base = linear(dim, out, bias=False)
        self.spline = linear(dim * (grid + degree), out, bias=False)
        self.register_buffer("low", torch.full((dim,), -reach))
        self.register_buffer("step", torch.full((dim,), 2 * reach / grid))
        self.register_buffer("matrix", numerators(degree), persistent=False)
        self.register_buffer("places", places(grid, degree), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        functions = basis((x.flatten(0, -2) - self.low) / self.step, self.matrix, self.places)
        return self.base(F.silu(x)) + self.spline(functions).unflatten(0, x.shape[:-1])

    @torch.no_grad()
    def fit(self, other: KAN) -> None:
        """Become the nearest to ``other``, a KAN from and to the same widths: least squares over this grid, by edge.

        So a grid is made finer: exact to rounding within the grid where the degree and the ends of the grid are the
        same and this one has a whole number of times as many intervals.
        """
        ends, theirs_are = (f"{each.base.inputs}->{each.base.outputs}" for each in (self, other))
        if ends != theirs_are:
            raise BadModel(f"kan {ends}: cannot become one of {theirs_are}; give one of the same widths")
        points = (self.degree + 2) * self.grid  # enough in every interval to tell its polynomial
        t = (torch.arange(points, dtype=torch.float64, device=self.low.device) + 0.5) / (self.degree + 2)
        x = self.low.double() + self.step.double() * t.unsqueeze(1)
        theirs = basis((x - other.low.double()) / other.step.double(), other.matrix, other.places)
        coefficients = other.spline.matrix().double().unflatten(1, (len(self.low), -1))
        values = torch.einsum("pim,oim->pio", theirs.unflatten(1, (len(self.low), -1)), coefficients)
        own = basis(t.unsqueeze(1), self.matrix, self.places)
        found = torch.linalg.lstsq(own, values.flatten(1)).solution.unflatten(1, values.shape[1:])
        self.spline.fit(found.permute(2, 1, 0).flatten(1).to(self.low.dtype))
        self.base.fit(other.base.matrix())

    @torch.no_grad()
    def cover(self, x: Tensor) -> None:
        """Move each input's grid to where the inputs x, (..., dim), are, and keep the function there by ``fit``.

        An input that does not vary in x keeps its grid.
        """
        before = copy.deepcopy(self)
        low, high = x.flatten(0, -2).aminmax(dim=0)
        varies = high > low
        self.low.copy_(torch.where(varies, low, self.low))
        self.step.copy_(torch.where(varies, (high - low) / self.grid, self.step))
        self.fit(before)
