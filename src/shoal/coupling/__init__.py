"""Coupling: which axes of which weights have to shrink together, in any nn.Module, found by running it once.

    found = coupled(module, example)
    for width in found.widths:                         channels, hidden units, heads
        slices, settings = width.cut(keep)             what to slice and to set, so that the units in keep stay
    cut_together(widths, keeps)                        the same for several at once, whose weights may be the same
    found.left                                         weight:axis -> one line why it stays as wide as it is

A width is a number of units that look alike: of each, the same rows and columns of the same weights. Every one was
tried on a copy: cut, it computes what it computes with zeros in their place.
"""

from shoal.coupling.finding import coupled
from shoal.coupling.slicing import cut
from shoal.coupling.widths import Coupling, Width, cut_together

__all__ = ["Coupling", "Width", "coupled", "cut", "cut_together"]
