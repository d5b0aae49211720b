"""Augment: small changes of images that leave their class alone, drawn anew for each batch.

    flip     mirrored left to right, half of the images
    crop     moved by up to 4 pixels (an eighth of the smaller side where that is less), zeros moving in
    shift    the same by up to 1 pixel

Images are (n, height, width, channels), or as other people's modules take them (n, channels, height, width), with 1, 3
or 4 channels. What moves in is zero: the mean of prepared images, black where they are bytes. All randomness comes from
the generator, on the CPU: the same generator makes the same changes on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from shoal.core.errors import BadSetting
from shoal.core.inputs import Inputs

CHANNELS = (1, 3, 4)  # an image has


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Half of the images mirrored left to right."""
    chosen = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(_height(x) + 1), x)


def crop(x: Tensor, generator: Generator) -> Tensor:
    """Each image moved by up to 4 pixels, by up to an eighth of the smaller side where that is less."""
    height = _height(x)
    return _moved(x, min(4, max(1, min(x.shape[height : height + 2]) // 8)), generator)


def shift(x: Tensor, generator: Generator) -> Tensor:
    """Each image moved by up to 1 pixel."""
    return _moved(x, 1, generator)


AUGMENTS: Mapping[str, Callable[[Tensor, Generator], Tensor]] = {"flip": flip, "crop": crop, "shift": shift}


def augmented(x: Inputs, names: tuple[str, ...], generator: Generator) -> Inputs:
    """The changes of that name, in order. Raises BadSetting for what holds no images."""
    if not names:
        return x
    if isinstance(x, dict):
        raise BadSetting(f"augment {names[0]!r}: rows of {', '.join(x)} are no images; leave augment out")
    if x.dim() != 4 or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise BadSetting(f"augment {names[0]!r}: rows of shape {tuple(x.shape[1:])} are no images; leave augment out")
    for name in names:
        x = AUGMENTS[name](x, generator)
    return x


def coloured(x: Inputs) -> bool:
    """Whether rows are images of colours, as bytes: in those, flips and moves leave the class alone."""
    if not isinstance(x, Tensor) or x.dim() != 4 or x.dtype != torch.uint8:
        return False
    return x.shape[1] in (3, 4) or x.shape[3] in (3, 4)


def _height(x: Tensor) -> int:
    """The axis of the height; the width is the next."""
    first = x.shape[1] in CHANNELS and x.shape[3] not in CHANNELS
    return 2 if first else 1


def _moved(x: Tensor, most: int, generator: Generator) -> Tensor:
    n, axis = len(x), _height(x)
    height, width = x.shape[axis : axis + 2]
    by = torch.randint(0, 2 * most + 1, (n, 2), generator=generator).to(x.device)
    around = (most, most, most, most)
    padded = F.pad(x, around if axis == 2 else (0, 0, *around))
    rows = (by[:, :1] + torch.arange(height, device=x.device))[:, :, None]
    columns = (by[:, 1:] + torch.arange(width, device=x.device))[:, None, :]
    each = torch.arange(n, device=x.device)[:, None, None]
    if axis == 1:
        return padded[each, rows, columns]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[each[:, None], channels, rows[:, None], columns[:, None]]
