"""Anatomy: the spans of any nn.Module that can be edited, found by running it once, not by knowing its class.

    span            a module that takes a tensor and gives one of the same shape
    stream span     carries its own skip, or is plain: dropping it passes its input on
    branch span     is added to a stream by somebody else: dropping it gives zero to the sum

One run records who made and who read every tensor (``dataflow``). A skip is a way from a span's input to its output
that meets no weights; a branch is an output that, by ways that meet no weights, only ever reaches a sum with a tensor
it was made from. Every module left alone has a reason.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from shoal.core.spans import Anatomy, Span
from shoal.dataflow import Call, Recorder, record

ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__", "sum", "sub", "sub_", "__sub__", "__isub__"}


def anatomy(module: nn.Module, example: Any) -> Anatomy:
    """Run the module once on the example (eval, no gradients); its spans. Raises BadModel if it does not run."""
    return _read(module, record(module, example))


def _read(module: nn.Module, recorder: Recorder) -> Anatomy:
    calls: dict[str, list[Call]] = {}
    for one in recorder.calls:
        calls.setdefault(one.path, []).append(one)
    shared = _shared_weights(module)
    left: dict[str, str] = {}
    found: dict[str, Span] = {}
    same: dict[tuple[int, int], str] = {}
    for path, part in module.named_modules():
        if not path:
            continue
        why = _why_not(recorder, part, calls.get(path, []), shared)
        if why:
            left[path] = why
            continue
        one = calls[path][0]
        assert one.given is not None
        assert one.made is not None
        outer = same.setdefault((one.given, one.made), path)
        if outer != path:
            left[path] = f"it is all there is of {outer}"
            continue
        sums = _sums(recorder, one.given, one.made)
        branch = not sums and _is_branch(recorder, one.made)
        params = sum(p.numel() for p in part.parameters())
        found[path] = Span(path, branch, sums > 0, sums, params, recorder.nodes[one.made].shape)
    kept = _chosen(found, left)
    spans = tuple(sorted(kept, key=lambda span: (calls[span.path][0].begin, len(span.path))))
    first = {path: ones[0] for path, ones in calls.items()}
    return Anatomy(spans, _chains(spans, first), _folds(module, recorder, calls), left)


def _sums(recorder: Recorder, given: int, made: int) -> int:
    """How many additions to the stream there are on the ways from a span's input to its output that meet no weights."""
    free = recorder.free(given)
    if made not in free:
        return 0
    stream = free & (recorder.sources(made) | {made})
    later = stream - {given}
    nodes = recorder.nodes
    return max(1, sum(nodes[i].op in ADDITIONS and any(m not in stream for m in nodes[i].makers) for i in later))


def _shared_weights(module: nn.Module) -> set[str]:
    """Paths of modules that stand in the tree more than once."""
    seen: dict[int, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        seen.setdefault(id(part), []).append(path)
    return {path for paths in seen.values() if len(paths) > 1 for path in paths}


def _why_not(recorder: Recorder, part: nn.Module, calls: list[Call], shared: set[str]) -> str:
    if not any(weight.dim() > 1 for weight in part.parameters()):
        return "it has no matrix of weights"
    if not calls:
        return "it did not run on the example"
    if len(calls) > 1 or calls[0].path in shared:
        return f"it is shared: one change would change {max(len(calls), 2)} places"
    one = calls[0]
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


def _is_branch(recorder: Recorder, made: int) -> bool:
    """Whether an output only ever reaches sums with a tensor that it was made from."""
    sources, shape, sums = recorder.sources(made), recorder.nodes[made].shape, 0
    front, seen = [made], {made}
    while front:
        for reader in recorder.nodes[front.pop()].readers:
            node = recorder.nodes[reader]
            others = [maker for maker in node.makers if maker not in seen]
            if node.op in ADDITIONS and node.shape == shape and any(_on_stream(recorder, o, sources) for o in others):
                sums += 1
            elif not node.weighted and node.shape == shape and not others:
                seen.add(reader)  # dropout, a scale: still the branch alone
                front.append(reader)
            else:
                return False
    return sums > 0


def _on_stream(recorder: Recorder, node: int, sources: set[int]) -> bool:
    """Whether the other side of a sum is a stream that the branch was made from, or a running sum over it."""
    front, seen = [node], {node}
    while front:
        here = front.pop()
        if here in sources:
            return True
        if recorder.nodes[here].op in ADDITIONS:
            new = [maker for maker in recorder.nodes[here].makers if maker not in seen]
            seen.update(new)
            front += new
    return False


def _chosen(found: dict[str, Span], left: dict[str, str]) -> list[Span]:
    """The spans to work with: what carries one skip or is a branch, and plain ones outside of those."""
    kept: list[Span] = []
    for path, span in found.items():
        inside = [s for s in _within(found, path) if s.sums or s.branch]
        around = [s for s in found.values() if path.startswith(s.path + ".") and (s.sums or s.branch)]
        atomic = [s.path for s in around if s.sums == 1 or s.branch]
        if atomic:
            left[path] = f"it is part of the span {atomic[0]}, which goes as a whole"
        elif span.sums > 1 and sum(max(s.sums, 1) for s in _outermost(inside)) >= span.sums:
            left[path] = f"it is made of {len(_outermost(inside))} smaller spans"
        elif not span.sums and not span.branch and (around or _within(found, path)):
            near = (around or _within(found, path))[0].path
            left[path] = f"it is plain, and {'in' if around else 'around'} the span {near}"
        else:
            kept.append(span)
    return kept


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
    """Pairs (matrix, norm or matrix) of which the second alone reads what the first gave."""
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
    return tuple(pairs)
