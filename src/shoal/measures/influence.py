"""Influence: how far the stream is turned by a span, and by runs of spans that follow each other.

    influence = 1 - cos(h, h + u)                       the mean over places
    angle_n   = arccos( cos(h_i, h_{i+n}) ) / pi        n spans from this one on

Near the end of a stage there are fewer than n: then those that there are.

Cost     1 run a batch
Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

import math

import pandas as pd
import torch

from shoal.core.base import Measure
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.measures._tables import Means, cosine, rows, square, table
from shoal.measures._watching import every_update


class Influence(Measure):
    """Settings: `lengths`, of how many spans the runs are."""

    def __init__(self, *, lengths: tuple[int, ...] = (1, 2, 4)) -> None:
        if not lengths or min(lengths) < 1:
            raise BadSetting(f"measure influence: lengths={list(lengths)}; give one or more, each at least 1")
        self.lengths = lengths

    def table(self, scene: Scene) -> pd.DataFrame:
        means = Means()
        for _, _, found in every_update(scene):
            for start, span in enumerate(scene.spans):
                h = rows(found[span.at].stream, span)
                means.add(span.at, "influence", 1 - cosine(h, rows(found[span.at].behind, span)))
                for length in self.lengths:
                    last = scene.spans[_end(scene, start, length)]
                    turned = cosine(h, rows(found[last.at].behind, last))
                    means.add(span.at, f"angle_{length}", turned.arccos() / math.pi)
        return table(scene, means.columns(scene))

    def map(self, scene: Scene) -> pd.DataFrame:
        """The angle between the streams before span i and behind span j, for every i <= j of one shape; else 0."""
        means = [Means() for _ in scene.spans]
        for _, _, found in every_update(scene):
            for start, span in enumerate(scene.spans):
                h = rows(found[span.at].stream, span)
                for last in scene.spans:
                    inside = last in scene.spans[start : _end(scene, start, len(scene.spans)) + 1]
                    turned = (
                        cosine(h, rows(found[last.at].behind, last)).arccos() / math.pi if inside else h.new_zeros(1)
                    )
                    means[start].add(last.at, "angle", turned)
        return square(scene, torch.tensor([each.columns(scene)["angle"] for each in means], dtype=torch.float64))


def _end(scene: Scene, start: int, length: int) -> int:
    """The last span of a run: all are alike in shape."""
    first, end = scene.spans[start], start
    while end + 1 < min(start + length, len(scene.spans)):
        following = scene.spans[end + 1]
        if (following.shape, following.axis) != (first.shape, first.axis):
            break
        end += 1
    return end
