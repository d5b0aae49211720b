"""The abstract bases: what each kind of method promises. None of them is ever built; no method is ever subclassed.

The tensor inside a net is ``(batch, *places, dim)``, channels last: no places for tables, one for sequences, two for
images. Arguments given by position come from the house; keyword-only ones are the method's settings.

Longer than the house's 250 lines: what each kind promises is read on one sheet.

Every class may carry ``tiny`` (settings small enough for the battery) and ``known`` (check -> reason why it must fail).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Value
from shoal.core.spans import Anatomy, Change, Span, Visit

if TYPE_CHECKING:
    from pandas import DataFrame

    from shoal.core.scene import Scene
    from shoal.core.spec import Spec

Branch: TypeAlias = Callable[[Tensor], Tensor]
Sizes: TypeAlias = Mapping[str, Callable[[int, Mapping[str, Value]], Value]]


class Method:
    """What every kind has in common: small settings for the battery, and failures that are known and must happen."""

    tiny: ClassVar[Mapping[str, Value]] = {}
    known: ClassVar[Mapping[str, str]] = {}
    sizes: ClassVar[Sizes] = {}  # setting whose default is None -> its value at a dim, given the settings before it

    def auxiliary_loss(self) -> Tensor | None:
        """What the last forward in training mode adds to the loss, already weighted: a penalty on open gates, on
        unbalanced experts. None where there is nothing to add."""
        return None

    @classmethod
    def size(cls, name: str, given: int | None, dim: int, **before: Value) -> int:
        """A width setting at its value: given, else its share of ``dim``."""
        value = cls.sizes[name](dim, before) if given is None else given
        if not isinstance(value, int) or value < 1:
            raise BadSetting(f"{cls.__name__}: {name}={value!r} at width {dim}; give at least 1")
        return value


class Linear(Method, nn.Module, ABC):
    """A matrix of some structure: ``cls(inputs, outputs, bias, kernel, groups, *, ...)``.

    ``kernel`` is () for a plain matrix; (3, 3) makes it that of a convolution, with ``inputs / groups * 9`` columns in
    the order (inputs, *kernel), as in torch.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, kernel: tuple[int, ...], groups: int) -> None:
        super().__init__()
        if min(inputs, outputs, groups) < 1:
            raise BadSetting(f"linear {inputs}->{outputs}, {groups} groups: give widths and groups of at least 1")
        if any(size < 1 or size % 2 == 0 for size in kernel):
            raise BadSetting(f"linear {inputs}->{outputs}: kernel {list(kernel)} must be odd, to keep the places")
        if inputs % groups or outputs % groups:
            raise BadSetting(f"linear {inputs}->{outputs}: {groups} groups do not divide both; choose a divisor")
        self.inputs, self.outputs, self.kernel, self.groups = inputs, outputs, kernel, groups
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    @property
    def columns(self) -> int:
        """Columns of the dense matrix: inputs a group times the places of the kernel."""
        return self.inputs // self.groups * int(torch.Size(self.kernel).numel())

    @abstractmethod
    def matrix(self) -> Tensor:
        """The dense matrix, (outputs, columns)."""

    @abstractmethod
    def fit(self, matrix: Tensor) -> None:
        """Set the weights to the nearest this structure has to ``matrix``, (outputs, columns); the bias stays."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs); only where ``kernel`` is ()."""

    @abstractmethod
    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        """(batch, inputs, *places) -> (batch, outputs, *places / stride); zero padding of half a kernel."""


class MakeLinear(Protocol):
    """Makes the matrices of a block: the linear kind is already chosen."""

    def __call__(
        self, inputs: int, outputs: int, *, bias: bool = True, kernel: tuple[int, ...] = (), groups: int = 1
    ) -> Linear: ...


class Norm(Method, nn.Module, ABC):
    """Normalises along dim: ``cls(dim, *, ...)``; same shape out."""

    channelwise: ClassVar[bool] = False  # in eval, an affine map of each channel alone: it folds and concatenates

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(batch, *places, dim) -> same."""

    @abstractmethod
    def planes(self, x: Tensor) -> Tensor:
        """The same on (batch, dim, *places), the view that convolutions work on."""

    @abstractmethod
    def affine(self) -> tuple[Tensor, Tensor]:
        """(scale, shift), each (dim,): of the whole norm in eval where ``channelwise``, else of its last step."""

    @abstractmethod
    def neutral(self) -> None:
        """Set that affine to the identity: scale one, shift zero."""


class MakeNorm(Protocol):
    """Makes the norms of a block: the norm kind is already chosen."""

    def __call__(self, dim: int) -> Norm: ...


class Block(Method, nn.Module, ABC):
    """What a layer computes: ``cls(dim, linear, *, ...)``, or with ``norm`` and ``out`` after ``linear`` by name.

    It never adds its own input: all parameters zero => output zero. A block that takes ``norm`` places its norms
    itself; before any other the layer puts one. A block that takes ``out`` ends at that width; behind any other the
    layer puts a linear where the widths differ. Context (mask, positions, edges, time) comes as keyword arguments
    of ``forward``.
    """

    layouts: ClassVar[tuple[int, ...]] = (0, 1, 2)  # numbers of places it works on
    norm: ClassVar[str] = "layer"  # the norm kind where the spec names none
    widths: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # setting -> "linear:in", "norm:dim" ... it sizes
    inlets: ClassVar[tuple[str, ...]] = ()  # the linears that read the block's (normed) input
    outlets: ClassVar[tuple[str, ...]] = ()  # the linears whose sum is the output
    folds: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # norm -> "linear:out" it follows, or "linear:in" that read it

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(batch, *places, dim) -> (batch, *places, out)."""


class Wiring(Method, nn.Module, ABC):
    """How layers are connected: ``cls(dim, depth, *, ...)``; it calls the layers it is given and owns none.

    A wiring that owns joins, gates or norms asks for their makers by naming ``linear`` or ``norm`` after ``depth``.
    """

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.dim, self.depth = dim, depth

    def ends(self) -> list[tuple[int, int]]:
        """What each layer takes and gives; (dim, dim) unless said."""
        return [(self.dim, self.dim)] * self.depth

    def out(self) -> int:
        """The width that leaves the stage; dim unless said."""
        return self.dim

    @abstractmethod
    def reads(self) -> list[set[int]]:
        """The wiring as data: the nodes each layer reads, then those the output reads. Node 0 is the input, node i + 1
        is what the i-th visited layer gave."""

    def groups(self) -> list[int] | None:
        """Sizes of the runs of layers that add to one stream side by side; None where the wiring is no such sum."""
        return None

    def without(self, index: int) -> dict[str, Value]:
        """This wiring's settings once the layer ``index`` has gone; Refused where that cannot be said."""
        raise Refused(f"wiring {type(self).__name__}: layer {index} cannot go without changing what the others read")

    @abstractmethod
    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        """(batch, *places, dim) -> (batch, *places, out)."""


class Stem(Method, nn.Module, ABC):
    """From data to the first stage: ``cls(dim, linear, norm, *, ...)``, the makers only where it asks for them."""

    @classmethod
    @abstractmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        """The settings that such data asks for; None where this stem cannot read it."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Prepared data -> (batch, *places, dim)."""


class Join(Method, nn.Module, ABC):
    """From one stage to the next: ``cls(inputs, outputs, linear, norm, *, ...)``, the makers where it asks for them."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(batch, *places, inputs) -> (batch, *places', outputs)."""


class Head(Method, nn.Module, ABC):
    """From the last stage to the answer: ``cls(dim, linear, norm, *, outputs, ...)``, the makers where it asks."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(batch, *places, dim) -> (batch, outputs) or (batch, *places, outputs)."""


class Task(Method, ABC):
    """What is asked of a net: its outputs, its loss, its quality. ``cls(*, ...)``."""

    metric: ClassVar[str]  # what quality is called in a table
    unit: ClassVar[str]  # "%" or ""
    head: ClassVar[str] = "pool"  # the head where the spec names none

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers the head gives (at a place)."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        """A scalar to go down; ``smoothing``: share of the target spread over all classes, where there are classes."""

    @abstractmethod
    def scores(self, output: Tensor, target: Tensor) -> Tensor:
        """(batch,) one number an example, higher is better; what paired tests compare."""

    @abstractmethod
    def quality(self, scores: Tensor, target: Tensor) -> float:
        """One number from all scores (and targets), higher is better: accuracy, R2."""

    @abstractmethod
    def distil(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """A scalar to go down: how far the output is from a teacher's."""


class Architecture(Method, ABC):
    """A named network: settings in, a complete Spec out. ``cls(*, ...)``.

    ``variants``: published names, each with its settings; ``resnet56`` is then short for ``resnet[depth=56]``. They
    begin with the name of the net's file: by it they are found.
    ``published``: variant -> how many parameters its paper or its official code states, to the unit.
    """

    variants: ClassVar[Mapping[str, Mapping[str, Value]]] = {}
    published: ClassVar[Mapping[str, int]] = {}

    @abstractmethod
    def spec(self) -> Spec:
        """The network, with stem and head."""

    def weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a published checkpoint under the names of the net; Refused where no such key map is known."""
        raise Refused(f"net {type(self).__name__}: no key map from other people's checkpoints is known")


class Edit(Method, ABC):
    """One structural change: a frozen dataclass of keyword-only JSON fields; ``path`` says where.

    ``rewrite`` changes a Spec and the weights that go with it, ``apply`` changes a module in place (the driver gives it
    a copy). Both raise Refused, with the reason, before anything is changed.
    """

    exact: ClassVar[bool] = False  # whether the outputs stay equal (to rounding, in eval)

    @abstractmethod
    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        """The new spec and all its weights."""

    @abstractmethod
    def apply(self, module: nn.Module) -> nn.Module:
        """The edited module; ``module`` itself may be changed and returned."""


class Intervention(Method, ABC):
    """Something changed in a run, at a span or at a run of neighbours, to see what it does. ``cls(*, ...)``.

    Nothing of the module changes: its parts are asked to give something else, in that run alone.
    """

    learns: ClassVar[bool] = False  # whether it must see rows before it can change anything

    @abstractmethod
    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        """The visited spans, or runs of neighbours, where it makes sense; in the order in which they run."""

    def learn(self, spans: tuple[Span, ...], given: Tensor, made: Tensor, wanted: Tensor) -> None:
        """Fit what it puts at a place: what goes into the spans and comes out of them on some rows, and what the module
        answers there."""
        raise Refused(f"intervention {type(self).__name__}: there is nothing to learn")

    @abstractmethod
    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        """What to do at which visits."""


class Measure(Method, ABC):
    """How a module uses its depth, seen from one side. ``cls(*, ...)``."""

    @abstractmethod
    def table(self, scene: Scene) -> DataFrame:
        """One row a visited span, in their order, with the columns ``path`` and ``visit`` first; all numbers finite."""


@dataclass(frozen=True)
class Proposal:
    """Edits that belong together: they take ``paths`` away and, where ``into`` is a path, put one span there. One that
    names no paths touches everything, and goes with no other.

    ``stay``: nothing goes from the paths, what stands there only becomes smaller, as where a width lies in several.
    ``weights``: values that data told, to be set once the edits are done, by their names in the edited module; all
    others are as the edits leave them.
    """

    edits: tuple[Edit, ...]
    paths: tuple[str, ...]
    into: str | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    stay: bool = False


class Compressor(Method, ABC):
    """Proposes what to edit next; it does not judge: harm and gain are measured. ``cls(*, ...)``.

    ``objective``: what heals its edits where that is not answering as the original does: a file's name in
    training/objectives, whose class is made as ``cls(task, teacher)``, or ``cls(task, teacher, graph)`` where it names
    one.
    """

    objective: ClassVar[str | None] = None

    @abstractmethod
    def propose(self, scene: Scene) -> Iterator[Proposal]:
        """Proposals that can be done on the scene's module as it is, in the order of their places."""
