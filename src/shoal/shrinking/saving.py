"""Saving: what a proposal saves, counted, and timed where it is latency.

Latency goes by the share of a run that spans take: a whole model's time is too noisy for one layer. Where a proposal
puts one span in the place of others, that one is timed in its place; like proposals are timed once.

In onnxruntime a span that takes the stream alone is timed by itself: two in a row, less a run of nothing. Other
shares are those in eager mode, whatever the runtime: what is chosen is measured in the runtime afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.base import Proposal
from shoal.core.example import arguments, evaluating
from shoal.costing import Cost, latency, per_span_ms
from shoal.edits.drop import Drop
from shoal.shrinking.scale import Scale


class Saving:
    """What proposals for one module save, by metric.

    ``touched``: the spans that they take; ``now`` is what the module measures, ``over`` what of it is above the goals;
    ``like`` keeps what like proposals saved.
    """

    def __init__(
        self,
        scale: Scale,
        module: nn.Module,
        touched: Sequence[str],
        now: Mapping[str, float],
        over: Mapping[str, float],
        like: dict[tuple[Any, ...], float],
    ) -> None:
        self.scale, self.module, self.now, self.over, self.like = scale, module, now, over, like
        timed = "latency" in over
        self.alone = _Alone(now["latency"], like) if timed and scale.runtime == "onnxruntime" else None
        self.shares = self._shared(module, touched, 0.8) if timed and touched else {}

    @cached_property
    def cost(self) -> Cost:
        """What the module costs, call by call."""
        return self.scale.cost(self.module)

    def of_drop(self, path: str) -> dict[str, float]:
        """Of a span that goes and leaves nothing: what it holds, what it computes, and its time."""
        part = self.module.get_submodule(path)
        found: dict[str, float] = {}
        if "params" in self.over:
            found["params"] = float(sum(p.numel() for p in part.parameters()))
        if "bytes" in self.over:
            found["bytes"] = float(sum(v.numel() * v.element_size() for v in part.state_dict().values()))
        if "macs" in self.over:
            found["macs"] = float(sum(c.macs for c in self.cost.calls if f"{c.path}.".startswith(f"{path}.")))
        if "latency" in self.over:
            found["latency"] = self.now["latency"] * self.shares[path]
        return found

    def of(self, shrunk: nn.Module, name: str, one: Proposal) -> dict[str, float]:
        """Of an edited copy: counted, and its time by what went and what came."""
        wanted = [metric for metric in self.over if metric != "latency"]
        counts = self.scale.counts(shrunk) if wanted else {}
        found = {metric: self.now[metric] - counts[metric] for metric in wanted}
        if "latency" in self.over:
            found["latency"] = self.now["latency"] * self._share(shrunk, name, one)
        return found

    def _share(self, shrunk: nn.Module, name: str, one: Proposal) -> float:
        """The share of a run that a proposal saves: that of the spans it takes, less that of the one it puts there;
        the whole run is timed where it is not about spans that go."""
        local = bool(one.paths) and all(path in self.shares for path in one.paths)
        drops = all(isinstance(edit, Drop) and edit.path in one.paths for edit in one.edits)
        key = (name, *(_form(self.module.get_submodule(path), path) for path in one.paths))
        if local and one.into is None and drops:
            return sum(self.shares[path] for path in one.paths)
        if local and one.into is not None:
            went = sum(self.shares[path] for path in one.paths)
            if self.alone is not None:
                return went - self._shared(shrunk, [one.into], 0.2)[one.into]
            key = (*key, _form(shrunk.get_submodule(one.into), ""))
            if key not in self.like:
                came = self._shared(shrunk, [one.into], 0.2)[one.into]
                self.like[key] = (1 - went) * came / (1 - came) / went  # in units of what went
            return went * (1 - self.like[key])
        key = (*key, _form(shrunk, ""))
        if key not in self.like:
            made, given = self.scale.standing(shrunk)
            before = self.scale.standing(self.module)
            ratio = latency(made, given, before, runtime=self.scale.runtime, seconds=0.5).ratio
            assert ratio is not None
            self.like[key] = 1 - ratio.value
        return self.like[key]

    def _shared(self, module: nn.Module, paths: Sequence[str], seconds: float) -> dict[str, float]:
        """The share of a run of the module that each span takes; where they are timed by themselves, of the whole."""
        found = {} if self.alone is None else self.alone.shares(*self.scale.standing(module), paths)
        rest = [path for path in paths if path not in found]
        return found | (_shares(*self.scale.standing(module), rest, seconds) if rest else {})


class _Alone:
    """Spans timed by themselves in onnxruntime, like ones once, as shares of ``whole`` milliseconds."""

    def __init__(self, whole: float, like: dict[tuple[Any, ...], float]) -> None:
        self.whole, self.like = whole, like

    def shares(self, module: nn.Module, example: Any, paths: Sequence[str]) -> dict[str, float]:
        """Of those spans that take one tensor and give one of its shape."""
        given: dict[str, Tensor] = {}

        def seen(path: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            single = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(out, Tensor)
            if single and out.shape == args[0].shape:
                given[path] = args[0].clone()

        handles = [
            module.get_submodule(path).register_forward_hook(
                lambda _, args, kwargs, out, path=path: seen(path, args, kwargs, out), with_kwargs=True
            )
            for path in paths
        ]
        try:
            with evaluating(module), torch.inference_mode():
                given_args, given_kwargs = arguments(example)
                module(*given_args, **given_kwargs)
        finally:
            for handle in handles:
                handle.remove()
        return {path: self._ms(module.get_submodule(path), x.clone()) / self.whole for path, x in given.items()}

    def _ms(self, span: nn.Module, x: Tensor) -> float:
        key = ("alone", tuple(x.shape), _form(span, ""), repr(span))
        if key not in self.like:
            twice = latency(nn.Sequential(span, copy.deepcopy(span)), x, runtime="onnxruntime", seconds=0.2).median
            self.like[key] = max(twice - self._call(x), 0.0) / 2
        return self.like[key]

    def _call(self, x: Tensor) -> float:
        """What a run takes that computes next to nothing of such a tensor."""
        key = ("call", tuple(x.shape))
        if key not in self.like:
            self.like[key] = latency(nn.ReLU(), x, runtime="onnxruntime", seconds=0.1).median
        return self.like[key]


def _form(part: nn.Module, path: str) -> tuple[Any, ...]:
    """What is alike in parts that take alike: where they stand, and the sizes of their weights."""
    weights = tuple(tuple(weight.shape) for weight in part.parameters())
    return (path.rpartition(".")[0], tuple(type(each).__name__ for each in part.modules()), weights)


def _shares(module: nn.Module, example: Any, paths: Sequence[str], seconds: float) -> dict[str, float]:
    """The share of a run of the module that each span takes, in the same runs: whatever else the machine does slows
    both."""
    times = per_span_ms(module, example, [*paths, ""], seconds=seconds)
    return {path: times[path] / times[""] for path in paths}
