"""What an analysis promises: skip harms for less than the plain loop, a ResNet-56 in minutes, predictions that hold.

    python bench/analyze.py speed             skip harm of every layer of a 12-layer transformer, against the plain loop
    python bench/analyze.py resnet56          seconds of a whole analysis, 2,000 images
    python bench/analyze.py agreement         predicted and realised harm, four networks; needs the extra "bench"

The plain loop leaves a layer out and evaluates all over again, once a layer; both take the examples in turns, piece by
piece. Predicted is the growth of the loss that an analysis saw on some rows with a span left out, and the sum of two or
three of them where several go; realised is what the loss of other rows grows by when the edit `drop` has really taken
them out. How well one half of those rows agrees with the other is said beside: of what is noise, nothing is foretold.
Results go to results/analyze_*.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _timing import RESULTS, show, write
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.analysis import Analysis, analyze
from shoal.anatomy import anatomy
from shoal.core.base import Task
from shoal.core.inputs import pieces
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene, answer, cut
from shoal.core.spans import Anatomy, Span, Visit
from shoal.core.spec import Spec
from shoal.edits.drop import Drop
from shoal.evidence import ratio_of_medians
from shoal.intervening import Judge, Trial, size_of_batch, split
from shoal.interventions.skip import Skip
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.recipe import replayed

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SHOAL_DATA", ROOT.parent / "shared" / "data"))
LENGTH, BYTES = 64, 128  # of a piece of text; ASCII
PIECE = 256  # examples between turns
NOTHING = Anatomy((), (), (), {})

os.environ.setdefault("SHOAL_DATA", str(DATA))  # wherever this is run from
sys.path.insert(0, str(ROOT / "examples"))


@dataclass(frozen=True)
class Case:
    """A network, rows to predict on, other rows, and what is asked for; None: its own answers."""

    net: nn.Module
    before: list[Batch]
    after: list[Batch]
    task: Task | None


def transformer() -> nn.Module:
    """Twelve layers of 256 channels, 64 places."""
    torch.manual_seed(0)
    text = "tokens[vocabulary=100,length=64] | residual(transformer) 12x256 | pool[outputs=10]"
    return Net(Spec.parse(text)).eval()


def speed(given: argparse.Namespace) -> None:
    """Ours and the plain loop in turns over all examples; the harms must agree to 1e-5."""
    net = transformer()
    torch.set_num_threads(given.threads)
    clock = time.thread_time if given.threads == 1 else time.perf_counter
    x, y = torch.randint(0, 100, (given.rows, LENGTH)), torch.randint(0, 10, (given.rows,))
    scene = Scene(net, anatomy(net, x[:2]), (Batch(x, y),), TASKS.make(Part("classification", {"classes": 10})))
    size = size_of_batch(scene, int(512e6))
    rows = []
    for batch in given.batches:
        times: dict[bool, list[float]] = {True: [], False: []}
        apart = 0.0
        for number, piece in enumerate(split(scene.batches, PIECE)):
            harms = {}
            for plain in (True, False) if number % 2 else (False, True):
                began = clock()
                harms[plain] = plain_loop(scene, piece, batch) if plain else ours(scene, piece, size)
                times[plain].append(clock() - began)
            apart = max(apart, float(np.abs(harms[True] - harms[False]).max()))
        assert apart <= 1e-5, apart
        ratio = ratio_of_medians(times[False], times[True], paired=True)
        row: dict[str, Any] = {"examples": given.rows, "loop's batch": batch, "our batch": size}
        row |= {"loop s": sum(times[True]), "ours s": sum(times[False]), "ratio": ratio.value}
        rows.append({**row, "low": ratio.low, "high": ratio.high, "apart": apart, "threads": given.threads})
    show(f"skip harm of {len(scene.spans)} layers", rows)
    print(f"written: {write('analyze_speed', rows, demand=0.35).name}")


def ours(scene: Scene, piece: Batch, size: int) -> np.ndarray:
    """The skip harm of every span, as an analysis finds it."""
    own = replace(scene, batches=tuple(split([piece], size)))
    base, told = Trial(own).told([Skip().changes((span,)) for span in own.spans])
    return np.array([(one.loss - base.loss).mean() for one in told])


def plain_loop(scene: Scene, piece: Batch, size: int) -> np.ndarray:
    """One evaluation as it is, and one a layer with what the layer gives set to zero."""
    assert piece.target is not None
    x, y = piece.example, piece.target

    def loss() -> float:
        with torch.inference_mode():
            pieces = zip(x.split(size), y.split(size), strict=True)
            return sum(float(F.cross_entropy(scene.module(a), b, reduction="sum")) for a, b in pieces) / len(x)

    base, harms = loss(), []
    for span in scene.spans:
        handle = scene.module.get_submodule(span.path).register_forward_hook(lambda _, __, out: torch.zeros_like(out))
        harms.append(loss() - base)
        handle.remove()
    return np.array(harms)


def resnet56(given: argparse.Namespace) -> None:
    """A whole analysis with the default interventions."""
    torch.set_num_threads(given.threads)
    case = cifar()
    began, busy = time.perf_counter(), time.process_time()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:.0f} s, {time.process_time() - busy:.0f} of the CPU: {line}", flush=True)

    found = analyze(case.net, case.before, rows=given.rows, progress=say)
    row: dict[str, Any] = {"images": found.rows, "spans": len(found.spans), "threads": given.threads}
    row |= {"seconds": time.perf_counter() - began, "CPU seconds": time.process_time() - busy}
    row |= {"effective depth": found.effective_depth.left, "held": found.held}
    show("analysis of ResNet-56", [row])
    print(found.spans[["path", "harm", "quality", "verdict"]].to_string())
    print(f"written: {write('analyze_resnet56', [row], demand=240).name}")


def agreement(given: argparse.Namespace) -> None:
    """Spearman of predicted and realised harm: single spans, and pairs and runs of three. What was measured of other
    networks before stays."""
    torch.set_num_threads(given.threads)
    path = RESULTS / "analyze_agreement.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in before if row["net"] not in given.nets]
    for name in given.nets:
        case = CASES[name]()
        case = replace(case, after=list(Scene(case.net, NOTHING, tuple(case.after)).head(given.others).batches))
        found = analyze(case.net, case.before, interventions=(), rows=given.rows, within=0, progress=print)
        rows.append({"net": name, **agreed(case, found)})
        show("predicted and realised harm", rows)
        write("analyze_agreement", rows, demand="single above 0.9, several above 0.8")


def agreed(case: Case, found: Analysis) -> dict[str, Any]:
    """Spearman for single spans, and for neighbours in twos and threes with pairs at random."""
    visits = [said.span.at for said in found.verdicts]
    random = np.random.default_rng(0)
    drawn = {tuple(sorted(random.choice(len(visits), 2, replace=False).tolist())) for _ in visits}
    several = [*pairwise(visits), *zip(visits, visits[1:], visits[2:], strict=False)]
    several = list(dict.fromkeys([*several, *((visits[i], visits[j]) for i, j in sorted(drawn))]))
    row: dict[str, Any] = {"spans": len(visits), "sets": len(several)}
    spans = {span.path: span for span in anatomy(case.net, cut(case.after[0], 2).example).spans}
    with torch.inference_mode():
        own = [answer(called(case.net, batch.example)) for batch in case.after]
    for name, sets in (("single", [(at,) for at in visits]), ("several", several)):
        grew = np.array([realised(case, without(case, spans, gone), own) for gone in sets])
        row[name] = float(spearmanr(found.predicted(sets), grew.mean(axis=1)).statistic)
        halves = grew[:, ::2].mean(axis=1), grew[:, 1::2].mean(axis=1)
        row[f"{name}, half against half"] = float(spearmanr(*halves).statistic)
    return row | {"predicted on": found.rows, "realised on": sum(batch.rows for batch in case.after)}


def without(case: Case, spans: Mapping[str, Span], visits: Sequence[Visit]) -> nn.Module:
    """The network with spans really taken out; of a sublayer that gives more than a tensor, the branch within it."""
    edits = []
    for visit in visits:
        inner = [path for path in spans if f"{path}.".startswith(f"{visit.path}.")]
        assert len(inner) == 1, (visit, inner)
        edits.append(Drop(path=inner[0], branch=spans[inner[0]].branch))
    return replayed(case.net, edits)


def realised(case: Case, net: nn.Module, own: Sequence[Tensor]) -> np.ndarray:
    """What the loss of each other row grows by; where there are no targets, the answers of the whole net are wanted."""
    judge, grew = Judge(case.task), []
    with torch.inference_mode():
        for batch, before in zip(case.after, own, strict=True):
            after = answer(called(net, batch.example))
            grew.append(judge(after, before, batch.target).loss - judge(before, before, batch.target).loss)
    return np.concatenate(grew)


def called(net: nn.Module, example: Any) -> Any:
    """What a network gives for an example."""
    return net(**example) if isinstance(example, dict) else net(example)


def cifar() -> Case:
    """The pretrained ResNet-56 and test images: half of them to predict on, the others."""
    from cifar10_resnet56 import data, model

    _, _, x, y = data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    before, after = (list(batched(x[rows], y[rows])) for rows in order.split(5000))
    return Case(model(), before, after, TASKS.make(Part("classification", {"classes": 10})))


def batched(x: Tensor, y: Tensor, size: int = 100) -> Iterator[Batch]:
    """Pairs in pieces."""
    return (Batch(*piece) for piece in zip(x.split(size), y.split(size), strict=True))


def minilm() -> Case:
    """MiniLM as the example opens it, and reviews of films: half to predict on, the others."""
    from minilm import data, model

    batches = [Batch(piece) for batch in data(1200) for piece in pieces(batch, 50)]
    return Case(model(), batches[:12], batches[12:], None)


def speaker(name: str, seconds: float = 60.0) -> Case:
    """A tiny language model of transformers, trained on tinyshakespeare for a minute, byte by byte."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    text = torch.frombuffer(bytearray((DATA / "tinyshakespeare.txt").read_bytes()), dtype=torch.uint8).long()
    ends = {"vocab_size": BYTES, "bos_token_id": 0, "eos_token_id": 0}
    net: nn.Module
    if name == "gpt2":
        sizes = {"n_embd": 96, "n_layer": 8, "n_head": 4, "n_positions": LENGTH}
        net = GPT2LMHeadModel(GPT2Config(**sizes, **ends, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    else:
        sizes = {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4, "intermediate_size": 256}
        net = LlamaForCausalLM(LlamaConfig(**sizes, **ends, num_key_value_heads=2, max_position_embeddings=LENGTH))
    optimiser, until = torch.optim.AdamW(net.parameters(), lr=2e-3), time.perf_counter() + seconds
    edge = int(0.8 * len(text))
    while time.perf_counter() < until:
        starts = torch.randint(0, edge - LENGTH - 1, (32, 1)) + torch.arange(LENGTH + 1)
        window = text[starts]
        loss = F.cross_entropy(net(window[:, :-1]).logits.flatten(0, 1), window[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    print(f"{name}: trained for {seconds:.0f} s, loss {float(loss.detach()):.2f} nats")
    windows = text[edge:].unfold(0, LENGTH + 1, LENGTH + 1)
    before, after = (list(batched(piece[:, :-1], piece[:, 1:], 50)) for piece in (windows[:600], windows[1000:1600]))
    return Case(net.eval(), before, after, TASKS.make(Part("next_token", {"vocabulary": BYTES})))


CASES: dict[str, Callable[[], Case]] = {
    "resnet56": cifar,
    "minilm": minilm,
    "gpt2": lambda: speaker("gpt2"),
    "llama": lambda: speaker("llama"),
}


def main() -> None:
    """Measure one of the promises."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("what", choices=("speed", "resnet56", "agreement"))
    reader.add_argument("--threads", type=int, default=2)
    reader.add_argument("--rows", type=int, default=2000)
    reader.add_argument("--others", type=int, default=1000, help="rows on which harm is realised")
    reader.add_argument("--batches", type=int, nargs="+", default=[256], help="sizes of the plain loop's batches")
    reader.add_argument("--nets", nargs="+", default=["resnet56", "minilm", "gpt2", "llama"])
    given = reader.parse_args()
    {"speed": speed, "resnet56": resnet56, "agreement": agreement}[given.what](given)


if __name__ == "__main__":
    main()
