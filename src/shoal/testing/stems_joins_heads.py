"""Checks of what stands at the ends of stages: stems read data, joins connect, heads answer."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from shoal.core.errors import BadSpec
from shoal.core.part import Part
from shoal.kinds import JOINS, STEMS
from shoal.testing._costs import require_costed
from shoal.testing._samples import BATCH, DIM, OFFERS, PLACES, Subject, build, inputs, require, require_gradients

# what data may look like: its places, its channels, its vocabulary
DATA: tuple[tuple[tuple[int, ...], int, int | None], ...] = (
    ((), 5, None),
    ((6,), 2, None),
    ((6, 6), 2, None),
    ((5, 7), 3, None),
    ((28, 28), 1, None),
    ((6,), 1, 7),
)
SIZES = (1, 2, 3, 4, 5, 6, 7)


def stem_reads(subject: Subject) -> None:
    """``reads`` gives settings that build and run on such data, or None; some data it reads, some not."""
    answers = {data: subject.cls.reads(*data) for data in DATA}
    read = [data for data, answer in answers.items() if answer is not None]
    require(bool(read), "it reads no data at all")
    require(len(read) < len(DATA), "it reads all data, rows and tokens and images alike")
    for data in read:
        stem = _stem(subject, data)
        y = stem(_data(*data))
        places = y.shape[1:-1]
        require(y.shape[0] == BATCH and y.shape[-1] == DIM, f"data {data} becomes {tuple(y.shape)}")
        require(len(places) == len(data[0]), f"data of places {data[0]} becomes places {tuple(places)}")
        require(bool(torch.isfinite(y).all()), "the output is not finite")
        require(torch.equal(stem(_data(*data)), y), "two runs on one input differ")


def stem_gradients(subject: Subject) -> None:
    """Finite gradients to every parameter."""
    for data in DATA:
        if subject.cls.reads(*data) is not None:
            stem = _stem(subject, data)
            require_gradients(stem, stem(_data(*data)))


def stem_rows_apart(subject: Subject) -> None:
    """In eval the rows of a batch do not mix."""
    for data in DATA:
        if subject.cls.reads(*data) is not None:
            stem, x = _stem(subject, data).eval(), _data(*data)
            other = x.clone()
            other[1] = x[0]
            require(torch.equal(stem(x)[0], stem(other)[0]), "row 0 changes with the last row of the batch")


def join_any_places(subject: Subject) -> None:
    """Any number of places, odd or even, at each stride: every axis becomes ceil(places / stride), the dim the next."""
    for part in _strides(subject):
        stride = part.settings.get("stride", 1)
        assert isinstance(stride, int)
        for places in _layouts(part):
            for size in SIZES:
                shape = tuple(size + i for i in range(places))
                join = JOINS.make(part, DIM, 12, dim=12, offers=OFFERS).double()
                y = join(torch.randn(BATCH, *shape, DIM, dtype=torch.float64))
                wanted = (BATCH, *(math.ceil(n / stride) for n in shape), 12)
                require(tuple(y.shape) == wanted, f"{part}: places {shape} become {tuple(y.shape)}, wanted {wanted}")
                require(bool(torch.isfinite(y).all()), "the output is not finite")


def join_any_widths(subject: Subject) -> None:
    """Wider, as wide and narrower; where it cannot, BadSpec says so when it is built."""
    places = _layouts(subject.part)[-1]
    for before, after in ((4, 4), (4, 7), (7, 4), (1, 8)):
        try:
            join = JOINS.make(subject.part, before, after, dim=after, offers=OFFERS)
        except BadSpec as error:
            require(after < before, f"{before} to {after} channels is refused: {error}")
            continue
        y = join.double()(inputs(places, before))
        require(y.shape[-1] == after, f"{before} channels become {y.shape[-1]}, wanted {after}")


def join_gradients(subject: Subject) -> None:
    """Finite gradients to every parameter and through to the input; rows do not mix in eval."""
    places = _layouts(subject.part)[-1]
    join, x = build(subject).double(), inputs(places).requires_grad_()
    require_gradients(join, join(x))
    require(x.grad is not None and bool(torch.isfinite(x.grad).all()), "no finite gradient through to the input")
    other = x.detach().clone()
    other[1] += 1
    require(torch.equal(join.eval()(x)[0], join(other)[0]), "row 0 changes with the last row of the batch")


def head_shape(subject: Subject) -> None:
    """(batch, outputs) at any layout, or (batch, *places, outputs) at any layout."""
    head = build(subject).double()
    outputs = subject.part.settings["outputs"]
    forms = []
    for places, shape in PLACES.items():
        y = head(inputs(places))
        require(bool(torch.isfinite(y).all()), "the output is not finite")
        found = [form for form in ((BATCH, outputs), (BATCH, *shape, outputs)) if tuple(y.shape) == form]
        require(bool(found), f"{places} places: the output is {tuple(y.shape)}")
        forms += [len(found[0]) - 2 == places] if places else []
    require(len(set(forms)) == 1, "it answers for each place at some layouts and once at others")


def head_gradients(subject: Subject) -> None:
    """Finite gradients to every parameter; rows do not mix in eval."""
    for places in PLACES:
        head, x = build(subject).double(), inputs(places)
        require_gradients(head, head(x))
        other = x.clone()
        other[1] += 1
        require(torch.equal(head.eval()(x)[0], head(other)[0]), "row 0 changes with the last row of the batch")


def head_costed(subject: Subject) -> None:
    """The counter knows every operation, at each layout."""
    for places in PLACES:
        require_costed(build(subject), inputs(places).float())


def _stem(subject: Subject, data: tuple[tuple[int, ...], int, int | None]) -> nn.Module:
    torch.manual_seed(1)
    stem: nn.Module = STEMS.make(Part(subject.name, subject.cls.reads(*data)), DIM, dim=DIM, offers=OFFERS)
    return stem


def _data(places: tuple[int, ...], channels: int, vocabulary: int | None) -> Tensor:
    source = torch.Generator().manual_seed(0)
    if vocabulary is not None:
        return torch.randint(vocabulary, (BATCH, *places), generator=source)
    return torch.randn(BATCH, *places, channels, generator=source)


def _strides(subject: Subject) -> Iterator[Part]:
    if "stride" not in subject.part.settings:
        yield subject.part
        return
    for stride in (1, 2, 3):
        yield subject.with_settings(stride=stride)


def _layouts(part: Part) -> tuple[int, ...]:
    """The numbers of places a join is for: as many as its kernel has sizes, any where it has none."""
    kernel = part.settings.get("kernel")
    return (len(kernel),) if isinstance(kernel, tuple) else tuple(PLACES)
