"""What a compression promises: networks of six families halved in time and more, for a point or half of one.

    python bench/compress.py resnet56                 four goals, 60 minutes each at most
    python bench/compress.py resnet56 --goals eager --minutes 20
    python bench/compress.py planner                  plans for ResNet-56 and no healing; two to four minutes a goal
    python bench/compress.py torch_pruning            the same net narrowed by Torch-Pruning, healed alike; half an hour
    python bench/compress.py minilm                   six layers of a transformer become three
    python bench/compress.py lstm gru mlp cora kan    teachers trained here, then halved; about five minutes each

Every figure comes from `shoal.compress`; latencies are at batch 1, of the original and what it became side by side in
one run and one runtime, and qualities of the test part. `met` is the goal on latency (its interval's upper end), and
no more lost than stated; `floor` is the test of the promise at 95%. Results go to results/compress_<case>.json, case by
case: what was measured before stays until it is measured again.

Weights and data are read from $SHOAL_DATA (default ../shared/data).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from _compressing import DATA, ROOT, RUNTIMES, Row, at_peak, keep, row_of, taught, told
from _timing import show
from safetensors.torch import load_file
from torch import Tensor, nn

import shoal
from shoal.anatomy import anatomy
from shoal.building import load_published
from shoal.compressed import Compression
from shoal.compression import CALIBRATION
from shoal.compressors.int8 import Int8
from shoal.core.errors import ShoalError
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene
from shoal.costing import latency
from shoal.data import Dataset
from shoal.data.encoders import Pixels
from shoal.evidence import floor, parse_keep
from shoal.goals import parse_goals
from shoal.kinds import COMPRESSORS, TASKS
from shoal.recipe import done
from shoal.shrinking.healing import settling
from shoal.shrinking.planning import Plan, Planner, shortlist
from shoal.shrinking.planning import told as measures
from shoal.shrinking.scale import Scale
from shoal.shrinking.weighing import Weighed, Weigher
from shoal.training import TrainingRecipe
from shoal.training.evaluate import evaluate

os.environ.setdefault("SHOAL_DATA", str(DATA))  # wherever this is run from
sys.path.insert(0, str(ROOT / "examples"))


@dataclass(frozen=True)
class Aim:
    """A goal on latency, the points that may be lost, and where latency is measured; whether it is for integers, which
    what was compressed in float32 becomes then. ``room``: the share of the limit that is asked for, where intervals are
    wide: all of the last one is to lie below."""

    to: str
    most: float
    runtime: str
    integers: bool = False
    room: float = 1.0

    @property
    def share(self) -> float:
        """Of the original's latency."""
        return parse_goals(self.to)[0].bound


# ResNet-56: all that is set by hand.
AIMS = {
    "onnxruntime": Aim("latency<=50%", 0.5, "onnxruntime"),
    "eager": Aim("latency<=25%", 1.0, "eager", room=0.95),
    "int8": Aim("latency<=25%", 1.0, "onnxruntime", integers=True),
    "resnet20": Aim("latency<=34.5%", 1.66, "onnxruntime"),  # what the published network of 20 layers takes and loses
}
BY = ("skip", "flatten")  # the compressors: maps and narrower layers look cheap before healing, and heal worse
HEALING = TrainingRecipe(  # as long as there is time
    lr=2e-3, batch=128, epochs=100, clip=1.0, ema=0.995, views=8, augment=("flip", "crop"), precision="bfloat16"
)
INTEGERS = TrainingRecipe(lr=2e-4, batch=128, epochs=1.0, clip=1.0, ema=0.99)
SHARE_OF_INTEGERS = 0.1  # of the time
FEWER_LAYERS = 1.1  # times the share of the latency that integers leave of the original, they leave of what it becomes
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the published weights were trained with
IMPORTANCES = ("magnitude", "group norm", "taylor")  # that Torch-Pruning narrows by


def resnet56(given: argparse.Namespace) -> None:
    """The pretrained ResNet-56: half of the time in onnxruntime, a quarter eager, a quarter in integers; and as fast as
    a ResNet-20 that was trained from scratch."""
    net, data = images(given.net)
    for name in given.goals:
        aim, seconds = AIMS[name], 60 * (given.minutes or 60)
        first = (1 - SHARE_OF_INTEGERS) * seconds if aim.integers else seconds
        found = shoal.compress(
            net,
            data,
            to=asked(net, data, aim),
            keep=f"-{aim.most}pt",
            within=first,
            recipe=HEALING,
            compressors=BY,
            controls=given.controls,
            runtime=aim.runtime,
            progress=say(),
        )
        told(name, found)
        row = row_of(name, found, aim.most)
        row |= {"goal": aim.to, "met": found.ratio.high <= aim.share and row["lost"] <= aim.most}
        if aim.integers:
            row = in_integers(name, aim, found, seconds - first, row)
        example, times = found.example, (found.before.latency.median, found.after.latency.median)
        pair = {"original": (net, example, times[0]), "compressed": (found.module, example, times[1])}
        peak = at_peak(pair, torch.get_num_threads())
        row |= {"native": given.net, "peak": peak, "yardsticks": yardsticks(found, aim.runtime)}
        keep("resnet56", [{**row, "report": found.report}])


def yardsticks(found: Compression, runtime: str) -> list[Row]:
    """The shallower networks of the same design that others trained from scratch, beside what was compressed in
    float32; they too with all exact edits done."""
    from cifar10_resnet56 import ResNet

    rows: list[Row] = []
    for blocks in (3, 5):
        name = f"resnet{6 * blocks + 2}"
        net = ResNet(blocks)
        net.load_state_dict(load_file(DATA / f"cifar10_{name}.safetensors"), strict=True)
        other = Scale(found.goals, net.eval(), found.example, runtime).ended(net)
        own = evaluate(other, found.dataset.test, TASKS.make(found.task)).quality
        ratio = latency(found.module, found.example, other, runtime=runtime, seconds=5.0).ratio
        assert ratio is not None
        times = f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        rows.append({"network": name, "accuracy": str(own), "compressed": str(found.after.result.quality)})
        rows[-1] |= {"latency, compressed / it": times}
    show("against shallower networks trained from scratch", rows)
    return rows


def images(native: bool) -> tuple[nn.Module, Dataset]:
    """The network with CIFAR-10 before it: the plain module of the example, which takes bytes; or the Net."""
    from cifar10_resnet56 import data, model

    if not native:
        return model(), shoal.open_data(data(), as_given=True)
    found = shoal.open_data("cifar10")
    encoder = Pixels(MEAN, STD, (32, 32))
    parts = {name: replace(getattr(found, name), prepare=encoder.prepare) for name in ("train", "valid", "test")}
    net = load_published("resnet56", DATA / "cifar10_resnet56.safetensors")
    return net, replace(found, encoder=encoder, **parts)


def asked(net: nn.Module, data: Dataset, aim: Aim) -> str:
    """The goal in float32. Before integers: theirs over what they leave of the original's latency, a little stricter,
    since the fewer layers there are, the more the first and the last one count, which stay as they are."""
    if not aim.integers:
        return f"latency<={100 * aim.room * aim.share:g}%"
    example, (rows, _) = data.example(1), data.train.take(CALIBRATION, 0).batch(slice(None))
    scene = Scene(net, anatomy(net, example), (Batch(rows),))
    proposed = next(one for one in Int8().propose(scene) if getattr(one.edits[-1], "kind", "") == "static")
    left = latency(done(net, proposed).eval(), example, net, runtime=aim.runtime, seconds=10.0).ratio
    assert left is not None
    print(f"integers leave {left} of the latency")
    return f"latency<={min(99.0, 100 * aim.share / (FEWER_LAYERS * left.value)):.1f}%"


def in_integers(name: str, aim: Aim, before: Compression, seconds: float, row: Row) -> Row:
    """What was compressed in float32, now in integers; both ends against the original in float32."""
    share = min(0.99, aim.share / before.ratio.value)
    rest = f"latency<={100 * share:.1f}%"
    try:
        found = shoal.compress(
            before.module,
            before.dataset,
            to=rest,
            keep=None,
            within=seconds,
            recipe=INTEGERS,
            compressors=["int8"],
            controls=False,
            runtime=aim.runtime,
            progress=say(),
        )
    except ShoalError as why:
        print(f"integers: {why}")
        return {**row, "integers": str(why), "met": False}
    told(f"{name}, integers", found)
    original, task = before.original, TASKS.make(before.task)
    times = latency(found.module, found.example, original, runtime=aim.runtime, seconds=10.0)
    own, now = (evaluate(one, before.dataset.test, task) for one in (original, found.module))
    lost, ratio = 100 * (own.quality.value - now.quality.value), times.ratio
    assert ratio is not None
    assert times.against is not None
    return {
        **row,
        "goal": f"{aim.to}, in integers",
        "after": f"{100 * now.quality.value:.2f}",
        "lost": lost,
        "floor": floor(own.scores, now.scores, parse_keep(f"-{aim.most}pt")).word,
        "ms": f"{times.against.median:.3f} => {times.median:.3f}",
        "latency": f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        "seconds": row["seconds"] + found.environment["seconds"],
        "in float32": row["latency"],
        "met": ratio.high <= aim.share and lost <= aim.most,
    }


def planned(
    net: nn.Module,
    data: Dataset,
    to: str,
    runtime: str,
    line: Callable[[str], None],
    options: Sequence[Weighed] = (),
) -> Planner:
    """Plans as a compression makes them, measured and not healed. ``options``: what was weighed for another limit."""
    task, example = TASKS.make(data.signature.task), data.example(1)
    weigher = Weigher(
        data.valid.take(CALIBRATION, 0).batch(slice(None)), task, Scale(parse_goals(to), net, example, runtime)
    )
    makers = {name: COMPRESSORS.make(Part.parse(name)) for name in BY}
    planner = Planner(net, weigher, makers, settling(data, 0), math.inf, line, list(options))
    planner.search()
    return planner


def planner(given: argparse.Namespace) -> None:
    """Plans alone, for each goal: seconds, and what was found."""
    net, data = images(given.net)
    rows: list[Row] = []
    for name in given.goals:
        aim, began = AIMS[name], time.perf_counter()
        to = asked(net, data, aim)
        found = planned(net, data, to, aim.runtime, say()).candidates
        seconds, best = time.perf_counter() - began, shortlist(found, 1)
        row: Row = {"case": name, "goal": to, "runtime": aim.runtime, "plans": len(found), "seconds": seconds}
        row["best before healing"] = f"{best[0].way}, {measures(best[0].values)}" if best else "-"
        rows.append({**row, "limit": 180, "native": given.net, "met": seconds <= 180 and bool(best)})
    keep("planner", rows)


def torch_pruning(given: argparse.Namespace) -> None:
    """Torch-Pruning and shoal's plans for the same module, healed by the same steps. Needs the extra "bench"."""
    from _torch_pruning import against_torch_pruning

    net, data = images(False)
    plans: dict[str, dict[str, Plan]] = {}
    for runtime in given.plan_for:
        options: Sequence[Weighed] = ()
        for to in given.to:
            made = planned(net, data, to, runtime, say(), options)
            options, best = made.options, shortlist(made.candidates, given.plans)
            plans[f"shoal, {to}, {runtime}"] = {one.way: one.plan for one in best}
    how = replace(HEALING, epochs=given.epochs)
    rows, faster = against_torch_pruning(net, data, plans, given.importances, given.ratios, how, say())
    show("all networks, healed alike", rows)
    keep("torch_pruning", faster)


def minilm(given: argparse.Namespace) -> None:
    """Six layers of a transformer that others trained become three; quality is fidelity to the original."""
    from minilm import data, model

    found = shoal.compress(
        model(),
        data(),
        to="depth<=55%,latency<=55.5%",
        keep="-2pt",
        within=60 * given.minutes if given.minutes else None,
        recipe=TrainingRecipe(
            lr=1e-3, batch=64, epochs=given.heal or 4, warmup=0.1, clip=1.0, ema=0.99, precision="bfloat16"
        ),
        compressors=["skip"],
        controls=given.controls,
        progress=say(),
    )
    told("minilm", found)
    keep("minilm", [{**row_of("minilm", found, 2.0), "report": found.report}])


# Teachers that are trained here.


class Recurrent(nn.Module):
    """A row of numbers read by stacked LSTMs or GRUs; the last place answers."""

    def __init__(self, kind: type[nn.RNNBase], classes: int, hidden: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.rnn = kind(1, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.rnn(x)[0][:, -1])
        return answer


def heartbeats() -> Dataset:
    """ECG5000: its test part, and of its 500 training rows some to choose on."""
    with np.load(DATA / "ucr_ecg5000.npz", allow_pickle=False) as held:
        x, y, test_x, test_y = (held[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return shoal.open_data((x[..., None], y, test_x[..., None], test_y))


def recurrent(name: str, kind: type[nn.RNNBase]) -> Callable[[argparse.Namespace], None]:
    """The case of one kind of recurrent layer."""

    def case(given: argparse.Namespace) -> None:
        data = heartbeats()
        recipe = TrainingRecipe(lr=3e-3, batch=32, epochs=60, clip=1.0, ema=0.98)
        net = taught(name, lambda: Recurrent(kind, len(data.classes or ())), data, recipe)
        by = ("skip", "channels", "channels[share=0.25]")  # small steps: there are two layers to choose from
        halved(name, net, data, replace(recipe, epochs=given.heal or 60), given, by)

    return case


def adult() -> Dataset:
    """Who earns more than 50 thousand; the official test part."""
    table = pd.read_csv(DATA / "tab_adult.csv.gz")
    x, y = table.drop(columns="income"), table["income"]
    return shoal.open_data((x[:32561], y[:32561], x[32561:], y[32561:]))


def mlp(given: argparse.Namespace) -> None:
    """Five matrices in a row, as most people write them."""
    data = adult()
    widths = [data.signature.channels, 256, 256, 256, 256]

    def make() -> nn.Module:
        body = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*body, nn.Linear(widths[-1], len(data.classes or ())))

    recipe = TrainingRecipe(lr=1e-3, batch=256, epochs=10, clip=1.0, ema=0.99)
    halved("mlp", taught("mlp", make, data, recipe), data, replace(recipe, epochs=given.heal or 10), given)


def kan(given: argparse.Namespace) -> None:
    """A Kolmogorov-Arnold network that tells phishing pages from others."""
    data = shoal.open_data(DATA / "tab_phishing.csv.gz", target="result")
    recipe = TrainingRecipe(lr=2e-3, batch=128, epochs=20, clip=1.0, ema=0.99)
    net = taught("kan", lambda: shoal.build("plain(kan norm=none) 4x32", like=data), data, recipe)
    halved("kan", net, data, replace(recipe, epochs=given.heal or 20), given)


def cora(given: argparse.Namespace) -> None:
    """A graph net becomes an MLP that sees no edges; the graph net is timed on the whole graph, which it needs."""
    data = shoal.open_data("cora")
    recipe = TrainingRecipe(
        optimizer="adam", lr=0.01, weight_decay=5e-4, epochs=200, batch=10_000, schedule="constant", warmup=0.0
    )
    net = taught("cora", lambda: shoal.build("gcn", like=data), data, recipe)
    healing = replace(recipe, epochs=given.heal or 300)
    halved("cora", net, data, healing, given, compressors=["gnn_to_mlp[dim=64,hidden=128]"])


def halved(
    name: str,
    net: nn.Module,
    data: Dataset,
    recipe: TrainingRecipe,
    given: argparse.Namespace,
    compressors: Sequence[str] | None = None,
) -> None:
    """Half of the latency for a point at most."""
    found = shoal.compress(
        net,
        data,
        to="latency<=50%",
        keep="-1pt",
        within=60 * given.minutes if given.minutes else None,
        recipe=recipe,
        compressors=compressors,
        controls=given.controls,
        runtime=given.runtime,
        progress=say(),
    )
    told(name, found)
    keep(name, [{**row_of(given.runtime, found, 1.0), "report": found.report}])


def say() -> Callable[[str], None]:
    """Prints a line with the seconds since now."""
    began = time.perf_counter()
    return lambda line: print(f"[{time.perf_counter() - began:5.0f} s] {line}", flush=True)


CASES: dict[str, Callable[[argparse.Namespace], None]] = {
    "resnet56": resnet56,
    "planner": planner,
    "torch_pruning": torch_pruning,
    "minilm": minilm,
    "lstm": recurrent("lstm", nn.LSTM),
    "gru": recurrent("gru", nn.GRU),
    "mlp": mlp,
    "cora": cora,
    "kan": kan,
}


def main() -> None:
    """Run the cases that are named, one after another."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("cases", nargs="+", choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    reader.add_argument("--minutes", type=float, help="of each compression; resnet56: 60")
    reader.add_argument("--threads", type=int, default=2)
    reader.add_argument("--controls", action="store_true", help="the same shape from scratch, and random edits")
    reader.add_argument("--net", action="store_true", help="resnet56 and planner: the Net, not the plain module")
    reader.add_argument("--goals", nargs="+", default=list(AIMS), choices=list(AIMS), help="of resnet56 and planner")
    reader.add_argument("--runtime", default="eager", choices=RUNTIMES, help="of the last five cases")
    reader.add_argument("--heal", type=float, help="epochs of healing in minilm and the last five cases")
    reader.add_argument("--epochs", type=float, default=0.5, help="of healing in torch_pruning, for every network")
    reader.add_argument(
        "--importances", nargs="+", default=list(IMPORTANCES), choices=IMPORTANCES, help="of torch_pruning"
    )
    reader.add_argument(
        "--plan-for", nargs="+", default=list(RUNTIMES), choices=RUNTIMES, help="shoal's in torch_pruning"
    )
    reader.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.75], help="of torch_pruning")
    reader.add_argument("--to", nargs="+", default=["latency<=50%", "latency<=30%"], help="shoal's in torch_pruning")
    reader.add_argument("--plans", type=int, default=1, help="that shoal tries for a goal there")
    given: Any = reader.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.cases:
        CASES[name](given)


if __name__ == "__main__":
    main()
