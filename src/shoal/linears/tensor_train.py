"""Tensor train: rows and columns each as several short axes, and one small core for each pair of them.

    W[r1 r2 .., c1 c2 ..] = G1[r1, c1] G2[r2, c2] ..        each G[r, c] a matrix from one bond to the next

With two cores it is the nearest sum of so many Kronecker products. As a convolution the kernel is made first: weights
go and multiply-adds stay.

Shapes   x: (..., inputs);  y: (..., outputs);  core: (row, bond behind, bond before, column)
Cost     the sizes of the cores as weights;  each multiplies all that is not yet, or no longer, of its own axes
Exact when the bonds reach those of the matrix it is fitted to
Papers   compactifai-extreme-compression-of-large-language
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear
from shoal.core.errors import BadSetting
from shoal.linears._cuts import bonds, split, train, trained


class TensorTrain(Linear):
    """Settings: `rank` of the bonds; where there can be less, as much as there can be; `cores`, how many."""

    tiny = {"rank": 2}

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool,
        kernel: tuple[int, ...],
        groups: int,
        *,
        rank: int = 8,
        cores: int = 2,
    ) -> None:
        super().__init__(inputs, outputs, bias, kernel, groups)
        if rank < 1 or cores < 2:
            raise BadSetting(f"linear tensor_train: rank={rank}, cores={cores}; give a rank of 1 and 2 cores at least")
        if groups > 1:
            raise BadSetting(f"linear tensor_train: a matrix of {groups} groups is no one train; use dense for it")
        self.rows, self.parts = split(outputs, cores), split(self.columns, cores)
        self.bonds = bonds(self.rows, self.parts, rank)
        for at in range(cores):
            shape = (self.rows[at], self.bonds[at + 1], self.bonds[at], self.parts[at])
            self.register_parameter(f"core{at}", nn.Parameter(torch.empty(shape)))
        self._convolve = (None, F.conv1d, F.conv2d, F.conv3d)[len(kernel)]
        self._padding = [size // 2 for size in kernel]
        self.reset_parameters()

    @property
    def cores(self) -> list[Tensor]:
        """The cores in a row."""
        return [self.get_parameter(f"core{at}") for at in range(len(self.rows))]

    def reset_parameters(self) -> None:
        """Draw the weights anew: as much variance as a dense matrix of these columns has."""
        for core in self.cores:
            nn.init.normal_(core, std=1 / math.sqrt(core.shape[1] * core.shape[3]))
        with torch.no_grad():
            self.cores[-1].mul_(3**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def matrix(self) -> Tensor:
        return trained(self.cores)

    def fit(self, matrix: Tensor) -> None:
        found = train(matrix, self.rows, self.parts, self.bonds)
        with torch.no_grad():
            for own, core in zip(self.cores, found, strict=True):
                own.copy_(core)

    def forward(self, x: Tensor) -> Tensor:
        y = x.reshape(-1, self.parts[0], self.columns // self.parts[0])  # (batch and rows so far, bond * column, rest)
        for core, column in zip(self.cores, (*self.parts[1:], 1), strict=True):
            row, behind = core.shape[:2]
            y = core.reshape(row * behind, -1) @ y
            rest = y.shape[-1] // column
            y = y.reshape(-1, behind * column, rest)
        y = y.reshape(*x.shape[:-1], self.outputs)
        return y if self.bias is None else y + self.bias

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        assert self._convolve is not None, "a plain matrix has no kernel to convolve with"
        kernel = self.matrix().view(self.outputs, self.inputs, *self.kernel)
        return self._convolve(x, kernel, self.bias, stride, self._padding)
