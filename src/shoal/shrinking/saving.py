"""Saving: what a proposal saves, counted, and timed where it is latency.

Latency goes by the share of a run that spans take: a whole model's time is too noisy for one layer. Where a proposal
puts one span in the place of others, that one is timed in its place; like proposals are timed once.

In onnxruntime a span that takes the stream alone is timed by itself: two in a row, less a run of nothing. How much of
a run all spans are together, and other shares, are those in eager mode, whatever the runtime: what is chosen is
measured in the runtime afterwards.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from shoal.core.base import Proposal
from shoal.core.errors import BadModel
from shoal.core.example import arguments, evaluating, failed
from shoal.costing import Cost, Prepared, alone, per_span_ms, prepared_beside
from shoal.edits.drop import Drop
from shoal.shrinking.scale import Scale

Saves: TypeAlias = Callable[[], dict[str, float]]
SECONDS = 0.15  # that a span is timed for
LARGEST = 256 << 20  # bytes of weights that are exported together
log = logging.getLogger("shoal")


class Saving:
    """What proposals for one module save, by metric. What a proposal saves is told by a call, to be made once all were
    asked for and ``time`` was called: what has to be built is then built together.

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
        self.shares: dict[str, float] = {}
        if timed and touched:
            self.shares = self._originals(touched)

    def _originals(self, touched: Sequence[str]) -> dict[str, float]:
        """The shares of the spans as they are. Timed by themselves they add up to another time than they take in a run:
        all of them together take the share that they have in eager mode."""
        if self.alone is None:
            return self._shared(self.module, touched, 0.8)()
        shares = self.alone.ask(*self.scale.standing(self.module), touched)
        self.time()
        eager = _shares(*self.scale.standing(self.module), touched, 0.8)
        together = sum(share() for share in shares.values())
        if together > 0:
            self.alone.whole *= together / sum(eager[path] for path in shares)
        return eager | {path: share() for path, share in shares.items()}

    def time(self) -> None:
        """Time what waits for it."""
        if self.alone is not None:
            self.alone.time()

    @cached_property
    def cost(self) -> Cost:
        """What the module costs, call by call."""
        return self.scale.cost(self.module)

    def of_drop(self, path: str) -> Saves:
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
        return lambda: found

    def of(self, shrunk: nn.Module, name: str, one: Proposal) -> Saves:
        """Of an edited copy: counted, and its time by what went and what came."""
        wanted = [metric for metric in self.over if metric != "latency"]
        counts = self.scale.counts(shrunk) if wanted else {}
        found = {metric: self.now[metric] - counts[metric] for metric in wanted}
        if "latency" not in self.over:
            return lambda: found
        share = self._share(shrunk, name, one)
        return lambda: {**found, "latency": self.now["latency"] * share()}

    def _share(self, shrunk: nn.Module, name: str, one: Proposal) -> Callable[[], float]:
        """The share of a run that a proposal saves: that of the spans it takes, less that of the one it puts there;
        the whole run is timed where it is not about spans that go."""
        local = bool(one.paths) and all(path in self.shares for path in one.paths)
        drops = all(isinstance(edit, Drop) and edit.path in one.paths for edit in one.edits)
        key = (name, *(_form(self.module.get_submodule(path), path) for path in one.paths))
        went = sum(self.shares[path] for path in one.paths) if local else 0.0
        if local and one.into is None and drops:
            return lambda: went
        if local and one.into is not None:
            into = one.into
            if self.alone is not None:
                came = self._shared(shrunk, [into], 0.2)
                return lambda: went - came()[into]
            key = (*key, _form(shrunk.get_submodule(into), ""))
            if key not in self.like:
                share = self._shared(shrunk, [into], 0.2)()[into]
                self.like[key] = (1 - went) * share / (1 - share) / went  # in units of what went
            return lambda: went * (1 - self.like[key])
        key = (*key, _form(shrunk, ""))
        if key not in self.like:
            ms = self.scale.measure(self.scale.ended(shrunk))["latency"]
            self.like[key] = 1 - ms / self.now["latency"]
        return lambda: self.like[key]

    def _shared(self, module: nn.Module, paths: Sequence[str], seconds: float) -> Callable[[], dict[str, float]]:
        """The share of a run of the module that each span takes; where they are timed by themselves, of the whole."""
        asked = {} if self.alone is None else self.alone.ask(*self.scale.standing(module), paths)
        rest = [path for path in paths if path not in asked]
        found = _shares(*self.scale.standing(self.scale.laid(module)), rest, seconds) if rest else {}
        return lambda: {**found, **{path: share() for path, share in asked.items()}}


class _Alone:
    """Spans timed by themselves in onnxruntime, like ones once, as shares of ``whole`` milliseconds."""

    def __init__(self, whole: float, like: dict[tuple[Any, ...], float]) -> None:
        self.whole, self.like = whole, like
        self.waiting: dict[tuple[Any, ...], tuple[nn.Module, Tensor]] = {}

    def ask(self, module: nn.Module, example: Any, paths: Sequence[str]) -> dict[str, Callable[[], float]]:
        """The shares of those spans that take one tensor and give one of its shape, to be told once they are timed."""
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
        except Exception as error:  # what an edit left does not run: its proposal is refused
            raise failed(module, error) from error
        finally:
            for handle in handles:
                handle.remove()
        return {path: self._asked(module.get_submodule(path), x.clone()) for path, x in given.items()}

    def _asked(self, span: nn.Module, x: Tensor) -> Callable[[], float]:
        """Two in a row, less a run that computes next to nothing of such a tensor."""
        twice, call = ("alone", tuple(x.shape), _form(span, ""), repr(span)), ("call", tuple(x.shape))
        if twice not in self.like:
            self.waiting[twice] = nn.Sequential(copy.deepcopy(span), copy.deepcopy(span)).eval(), x
        if call not in self.like:
            self.waiting[call] = nn.ReLU().eval(), x

        def share() -> float:
            if twice not in self.like:
                raise BadModel(f"{type(span).__name__} in onnxruntime: it cannot be exported by itself to be timed")
            return max(self.like[twice] - self.like[call], 0.0) / 2 / self.whole

        return share

    def time(self) -> None:
        """Time all that waits; what cannot be exported is left out."""
        for keys in _in_pieces(self.waiting):
            try:
                built = dict(zip(keys, prepared_beside([self.waiting[key] for key in keys]), strict=True))
            except BadModel as why:
                log.info("one after another: %s", why)
                built = {key: one for key in keys for one in self._each(key)}
            self.like |= {key: alone(one, SECONDS).median for key, one in built.items()}
        self.waiting = {}

    def _each(self, key: tuple[Any, ...]) -> list[Prepared]:
        try:
            return prepared_beside([self.waiting[key]])
        except BadModel as why:
            log.info("not timed by itself: %s", why)
            return []


def _in_pieces(waiting: Mapping[tuple[Any, ...], tuple[nn.Module, Tensor]]) -> Iterator[list[tuple[Any, ...]]]:
    """The keys, as many at a time as one file holds well."""
    piece: list[tuple[Any, ...]] = []
    held = 0
    for key, (module, _) in waiting.items():
        size = sum(value.numel() * value.element_size() for value in module.state_dict().values())
        if piece and held + size > LARGEST:
            yield piece
            piece, held = [], 0
        piece.append(key)
        held += size
    if piece:
        yield piece


def _form(part: nn.Module, path: str) -> tuple[Any, ...]:
    """What is alike in parts that take alike: where they stand, and the sizes of their weights."""
    weights = tuple(tuple(weight.shape) for weight in part.parameters())
    return (path.rpartition(".")[0], tuple(type(each).__name__ for each in part.modules()), weights)


def _shares(module: nn.Module, example: Any, paths: Sequence[str], seconds: float) -> dict[str, float]:
    """The share of a run of the module that each span takes, in the same runs: whatever else the machine does slows
    both."""
    times = per_span_ms(module, example, [*paths, ""], seconds=seconds)
    return {path: times[path] / times[""] for path in paths}
