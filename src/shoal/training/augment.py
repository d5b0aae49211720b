"""Augment: small changes of images that leave their class alone, drawn anew for each batch.

    flip     mirrored left to right, half of the images
    crop     moved by up to 4 pixels (an eighth of the smaller side where that is less), zeros moving in
    shift    the same by up to 1 pixel

Images are prepared (n, height, width, channels) floats, where zero is the mean. All randomness comes from the
generator, on the CPU: the same generator makes the same changes on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from shoal.core.errors import BadSetting


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Half of the images mirrored left to right."""
    chosen = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(2), x)


def crop(x: Tensor, generator: Generator) -> Tensor:
    """Each image moved by up to 4 pixels, by up to an eighth of the smaller side where that is less."""
    return _moved(x, min(4, max(1, min(x.shape[1:3]) // 8)), generator)


def shift(x: Tensor, generator: Generator) -> Tensor:
    """Each image moved by up to 1 pixel."""
    return _moved(x, 1, generator)


AUGMENTS: Mapping[str, Callable[[Tensor, Generator], Tensor]] = {"flip": flip, "crop": crop, "shift": shift}


def augmented(x: Tensor, names: tuple[str, ...], generator: Generator) -> Tensor:
    """The changes of that name, in order. Raises BadSetting for what holds no images."""
    if names and (x.dim() != 4 or not x.is_floating_point()):
        raise BadSetting(f"augment {names[0]!r}: rows of shape {tuple(x.shape[1:])} are no images; leave augment out")
    for name in names:
        x = AUGMENTS[name](x, generator)
    return x


def _moved(x: Tensor, most: int, generator: Generator) -> Tensor:
    n, height, width, _ = x.shape
    by = torch.randint(0, 2 * most + 1, (n, 2), generator=generator).to(x.device)
    padded = F.pad(x, (0, 0, most, most, most, most))
    rows = by[:, :1] + torch.arange(height, device=x.device)
    columns = by[:, 1:] + torch.arange(width, device=x.device)
    each = torch.arange(n, device=x.device)
    return padded[each[:, None, None], rows[:, :, None], columns[:, None, :]]
