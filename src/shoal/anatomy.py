"""Anatomy: the spans of any nn.Module that can be edited, found by running it once, not by knowing its class.

    span            a module whose main input and output, the first tensors, agree in shape
    stream span     carries its own skip, or is plain: dropping it passes its input on
    branch span     is added to a stream by somebody else: dropping it gives zero to the sum

One run records who made and who read every tensor (``dataflow``). A skip is a way from a span's input to its output
that meets no matrix of weights (a norm on the stream may be there); a branch is an output that, by ways that meet no
weights but a scale, only ever reaches a sum with a tensor it was made from. Every module left alone has a reason.

Longer than the house's 250 lines by a few: each rule of what is a span stands beside the next.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from shoal.core.spans import Anatomy, Span
from shoal.dataflow import Call, Recorder, record

CHANNELS_FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ONCE_IS_ENOUGH = (nn.ReLU, nn.ReLU6)  # twice does what once does
MOST = 0.75  # of the sums in a module: where smaller spans carry so many, it is made of them
ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__", "sum", "sub", "sub_", "__sub__", "__isub__"}


def anatomy(module: nn.Module, example: Any) -> Anatomy:
    """Run the module once on the example (eval, no gradients); its spans. Raises BadModel if it does not run."""
    return _read(module, record(module, example))


def _read(module: nn.Module, recorder: Recorder) -> Anatomy:
    calls: dict[str, list[Call]] = {}
    for one in recorder.calls:
        calls.setdefault(one.path, []).append(one)
    shared = _shared_weights(module)
    left: dict[str, str] = {}  # why it is not edited
    unvisited: dict[str, str] = {}  # why it is not looked at
    found: dict[str, Span] = {}
    looked: dict[str, Span] = {}
    for path, part in module.named_modules():
        if not path:
            continue
        own = calls.get(path, [])
        why = _why_no_span(recorder, part, own)
        if why:
            left[path] = unvisited[path] = why
            continue
        looked[path] = _span(recorder, part, own[0], 0)
        why = _why_no_edit(own, shared)
        if why:
            left[path] = why
        else:
            found[path] = looked[path]
    first = {path: ones[0] for path, ones in calls.items()}
    spans = tuple(sorted(_chosen(found, first, left), key=lambda span: (first[span.path].begin, len(span.path))))
    visits = [
        (one.begin, _span(recorder, module.get_submodule(span.path), one, number))
        for span in _chosen(looked, first, unvisited)
        for number, one in enumerate(calls[span.path])
    ]
    return Anatomy(
        spans,
        _chains(spans, first),
        _folds(module, recorder, calls),
        left,
        tuple(span for _, span in sorted(visits, key=lambda found: (found[0], len(found[1].path)))),
        unvisited,
    )


def _ends(one: Call) -> tuple[int, int]:
    """The nodes of a call's main input and output, which it has."""
    assert one.given is not None
    assert one.made is not None
    return one.given, one.made


def _span(recorder: Recorder, part: nn.Module, one: Call, number: int) -> Span:
    given, made = _ends(one)
    sums = _sums(recorder, given, made)
    stream, scaled = (None, False) if sums else _stream(recorder, made)
    params = sum(p.numel() for p in part.parameters())
    shape = recorder.nodes[made].shape
    axis = 1 if len(shape) > 2 and any(isinstance(each, CHANNELS_FIRST) for each in part.modules()) else -1
    direct = stream == given and not scaled
    branch = stream is not None
    return Span(one.path, branch, sums > 0, sums, params, shape, number, direct, axis, one.form, one.written)


def _sums(recorder: Recorder, given: int, made: int) -> int:
    """How many additions to the stream there are on the ways from a span's input to its output that meet no matrix."""
    free, nodes = recorder.free(given), recorder.nodes
    if made not in free:
        return 0
    stream, front = {made}, [made]  # what lies on such ways: reached from the input, and reaching the output
    while front:
        new = [maker for maker in nodes[front.pop()].makers if maker in free and maker not in stream]
        stream.update(new)
        front += new
    later = stream - {given}
    return max(1, sum(nodes[i].op in ADDITIONS and any(m not in stream for m in nodes[i].makers) for i in later))


def _shared_weights(module: nn.Module) -> set[str]:
    """Paths of modules that stand in the tree more than once."""
    seen: dict[int, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        seen.setdefault(id(part), []).append(path)
    return {path for paths in seen.values() if len(paths) > 1 for path in paths}


def _why_no_span(recorder: Recorder, part: nn.Module, calls: list[Call]) -> str:
    """Why nothing can be said of what is there without it."""
    if not any(weight.dim() > 1 for weight in part.parameters()):
        return "it has no matrix of weights"
    if not calls:
        return "it did not run on the example"
    return next((why for why in (_why_no_visit(recorder, one) for one in calls) if why), "")


def _why_no_visit(recorder: Recorder, one: Call) -> str:
    if one.why or one.given is None or one.made is None:
        return one.why or "it has no tensor in or out"
    given, made = recorder.nodes[one.given], recorder.nodes[one.made]
    if not (given.floating and made.floating):
        return "it takes or gives no floating-point numbers"
    if given.shape != made.shape:
        return f"it changes the shape, {list(given.shape)} to {list(made.shape)}"
    if one.made == one.given:
        return "it gives its input back as it is"
    return ""


def _why_no_edit(calls: list[Call], shared: set[str]) -> str:
    """Why a span can be looked at, and not replaced."""
    if len(calls) > 1 or calls[0].path in shared:
        return f"it is shared: one change would change {max(len(calls), 2)} places"
    return calls[0].odd


def _stream(recorder: Recorder, made: int) -> tuple[int | None, bool]:
    """The stream that an output is first added to, where it only ever reaches sums with a tensor it was made from; and
    whether a learned scale stands between."""
    sources, shape = recorder.sources(made), recorder.nodes[made].shape
    stream: int | None = None
    front, seen = [made], {made}
    while front:
        for reader in recorder.nodes[front.pop()].readers:
            node = recorder.nodes[reader]
            others = [maker for maker in node.makers if maker not in seen]
            streams = [other for other in others if _on_stream(recorder, other, sources)]
            if node.op in ADDITIONS and node.shape == shape and streams:
                stream = streams[0] if stream is None else stream
            elif (node.scaled or not node.weighted) and node.shape == shape and not others:
                seen.add(reader)  # dropout, a scale, be it learned: still the branch alone
                front.append(reader)
            else:
                return None, False
    return stream, any(recorder.nodes[node].scaled for node in seen - {made})


def _on_stream(recorder: Recorder, node: int, sources: set[int]) -> bool:
    """Whether the other side of a sum is a stream that the branch was made from, or a running sum over it, scaled or
    not."""
    front, seen = [node], {node}
    while front:
        here = front.pop()
        if here in sources:
            return True
        if recorder.nodes[here].op in ADDITIONS or recorder.nodes[here].scaled:
            new = [maker for maker in recorder.nodes[here].makers if maker not in seen]
            seen.update(new)
            front += new
    return False


def _chosen(found: dict[str, Span], calls: dict[str, Call], left: dict[str, str]) -> list[Span]:
    """The spans to work with: what carries one skip or is a branch, and plain ones outside of those, with what is about
    them alone. Why the others are none goes into ``left``."""
    single: dict[str, Span] = {}
    outers: dict[tuple[int, int], str] = {}
    for path, span in found.items():
        outer = outers.setdefault(_ends(calls[path]), path)
        if outer == path:
            single[path] = span
        else:
            left[path] = f"it is all there is of {outer}"
    kept: list[Span] = []
    for path, span in single.items():
        around = [s for s in single.values() if path.startswith(s.path + ".") and (s.sums or s.branch)]
        whole = [s.path for s in around if _is_whole(single, s)]
        if whole:
            left[path] = f"it is part of the span {whole[0]}, which goes as a whole"
        elif (span.sums or span.branch) and not _is_whole(single, span):
            left[path] = f"it is made of {len(_inside(single, span))} smaller spans"
        elif not span.sums and not span.branch and (around or not _is_unit(single, span)):
            near = (around or _within(single, path))[0].path
            left[path] = f"it is plain, and {'in' if around else 'around'} the span {near}"
        elif units := [s.path for s in single.values() if path.startswith(s.path + ".") and _is_unit(single, s)]:
            left[path] = f"it is all that has weights in the span {units[0]}"
        else:
            kept.append(span)
    return kept


def _is_whole(found: dict[str, Span], span: Span) -> bool:
    """Whether a span goes as a whole: a branch, one sum, or sums most of which no smaller span carries."""
    return span.branch or span.sums == 1 or sum(max(s.sums, 1) for s in _inside(found, span)) < MOST * span.sums


def _is_unit(found: dict[str, Span], span: Span) -> bool:
    """Whether a plain span goes as a whole: it holds no smaller one, or one that is plain, with what surrounds it."""
    within = _within(found, span.path)
    inner = [s for s in within if not _within(found, s.path)]
    return len(inner) < 2 and not any(s.sums or s.branch for s in (span, *within))


def _inside(found: dict[str, Span], span: Span) -> list[Span]:
    """The largest spans within one that carry a skip or are branches."""
    return _outermost([s for s in _within(found, span.path) if s.sums or s.branch])


def _within(found: dict[str, Span], path: str) -> list[Span]:
    return [span for span in found.values() if span.path.startswith(path + ".")]


def _outermost(spans: list[Span]) -> list[Span]:
    return [s for s in spans if not any(s.path.startswith(other.path + ".") for other in spans)]


def _chains(spans: tuple[Span, ...], calls: dict[str, Call]) -> tuple[tuple[str, ...], ...]:
    """Runs of stream spans that carry a skip, of which each reads what the one before gave."""
    chains: list[list[str]] = []
    for span in spans:
        if not span.skip:
            continue
        before = chains[-1][-1] if chains else None
        if before is not None and calls[span.path].given == calls[before].made:
            chains[-1].append(span.path)
        else:
            chains.append([span.path])
    return tuple(tuple(chain) for chain in chains if len(chain) > 1)


def _folds(module: nn.Module, recorder: Recorder, calls: dict[str, list[Call]]) -> tuple[tuple[str, str], ...]:
    """Pairs (matrix, norm or matrix) of which the second alone reads what the first gave; and of activations of which
    the second does again what the first did."""
    matrices = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    once = {path: ones[0] for path, ones in calls.items() if len(ones) == 1}
    readers = {
        one.given: path for path, one in once.items() if isinstance(module.get_submodule(path), (*norms, nn.Linear))
    }
    pairs: list[tuple[str, str]] = []
    for path, one in once.items():
        first = module.get_submodule(path)
        if one.made is None or not isinstance(first, matrices) or one.made not in readers:
            continue
        second = module.get_submodule(readers[one.made])
        if len(recorder.nodes[one.made].readers) != 1:
            continue
        rows = len(recorder.nodes[one.made].shape) == 2  # only then does a norm behind a Linear work on its outputs
        linear = isinstance(first, nn.Linear)
        if (isinstance(second, norms) and (rows or not linear)) or (isinstance(second, nn.Linear) and linear):
            pairs.append((path, readers[one.made]))
    clipped = {one.made: path for path, one in once.items() if type(module.get_submodule(path)) in ONCE_IS_ENOUGH}
    stays: dict[str, str] = {}  # of a row of them the first
    for path in sorted(clipped.values(), key=lambda path: once[path].begin):
        before = clipped.get(once[path].given, path)
        if before != path and type(module.get_submodule(before)) is type(module.get_submodule(path)):
            stays[path] = stays.get(before, before)
    return (*pairs, *((first, path) for path, first in stays.items()))
