"""Kind: one folder of methods. The folder is the registry: file stem = name, one public class a file.

Nothing registers itself and nothing is imported until it is asked for: names come from the folder, first docstring
lines from the source text, classes from ``import`` on request. Plug-ins stand in the entry points ``shoal.<folder>``.

The keyword-only arguments of a method's constructor are its settings: their names, types and defaults are read from the
signature, here and nowhere else.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from shoal.core.errors import BadSetting, MissingExtra, UnknownName, suggest
from shoal.core.part import Part, Value, freeze


@dataclass(frozen=True)
class Setting:
    """One keyword-only argument: its name, its type as written, its default (``REQUIRED`` where there is none)."""

    name: str
    type: Any
    default: Any

    REQUIRED: typing.ClassVar[Any] = inspect.Parameter.empty


@dataclass(frozen=True)
class Kind:
    """A folder of methods that can stand in for one another.

    ``name``: singular, for messages; ``folder``: under ``shoal``, also the entry-point group; ``base``: what each class
    derives from, a name in ``shoal.core.base`` (a name and not the class, so that listing imports no torch).
    """

    name: str
    folder: str
    base: str

    def names(self) -> tuple[str, ...]:
        """Every name there is, sorted: the files of the folder and the plug-ins."""
        return tuple(sorted([*_files(self.folder), *_plugins(self.folder)]))

    def get(self, name: str) -> type[Any]:
        """The class of that name, imported now. Raises UnknownName with the nearest names."""
        if name in _plugins(self.folder):
            return self._checked(name, _plugins(self.folder)[name].load())
        if name not in _files(self.folder):
            raise UnknownName(f"{self.name} {name!r} is unknown; {suggest(name, self.names())}")
        try:
            module = importlib.import_module(f"shoal.{self.folder}.{name}")
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] != "shoal":
                raise MissingExtra(f"{self.name} {name!r} needs the package {error.name!r}; install it") from None
            raise
        return self._checked(name, _public_class(module))

    def summary(self, name: str) -> str:
        """The first line of the method's docstring, read without importing it."""
        if name in _plugins(self.folder):
            return (_plugins(self.folder)[name].load().__doc__ or "").partition("\n")[0]
        doc = ast.get_docstring(ast.parse(_files(self.folder)[name].read_text(encoding="utf-8"))) or ""
        return doc.partition("\n")[0].partition(": ")[2] or doc.partition("\n")[0]

    def settings(self, name: str) -> dict[str, Setting]:
        """The settings of a method, by name, in the order of its signature."""
        cls: Any = self.get(name)
        return _settings(cls)

    def complete(self, part: Part, dim: int | None = None) -> Part:
        """The part with every setting at its value: given, else the default, else (None) its share of ``dim``."""
        cls: Any = self.get(part.name)
        known = _settings(cls)
        for key in part.settings:
            if key not in known:
                raise BadSetting(f"{self.name} {part.name!r} has no setting {key!r}; {suggest(key, known)}")
        sizes: Mapping[str, Callable[[int, Mapping[str, Value]], Value]] = getattr(cls, "sizes", {})
        full: dict[str, Value] = {}
        for key, setting in known.items():
            value = part.settings.get(key, setting.default)
            if value is Setting.REQUIRED:
                raise BadSetting(f"{self.name} {part.name!r} needs the setting {key!r}: write {part.name}[{key}=...]")
            if value is None and key in sizes and dim is not None:
                value = sizes[key](dim, full)
            full[key] = self._typed(part.name, setting, freeze(value))
        return Part(part.name, full)

    def sparse(self, part: Part, dim: int | None = None) -> Part:
        """The inverse of :meth:`complete`: only the settings that differ from what it would fill in."""
        return Part(part.name, {k: v for k, v in part.settings.items() if not self._follows(part, k, dim)})

    def _follows(self, part: Part, key: str, dim: int | None) -> bool:
        """Whether the setting's value is what :meth:`complete` fills in where all others are given."""
        others = Part(part.name, {k: v for k, v in part.settings.items() if k != key})
        try:
            return self.complete(others, dim).settings[key] == part.settings[key]
        except BadSetting:  # it is required, or nothing fits the others
            return False

    def make(
        self, part: Part, *house: Any, dim: int | None = None, offers: Mapping[str, Any] = types.MappingProxyType({})
    ) -> Any:
        """Build the class: ``house`` are the arguments the house gives by position, the settings come from the part.

        ``offers``: what the class gets only where its constructor names it, behind those by position.
        """
        full = self.complete(part, dim)
        cls: Any = self.get(part.name)
        asked = {name: offers[name] for name in _asked(cls)[len(house) :] if name in offers}
        return cls(*house, **asked, **full.settings)

    def asks(self, name: str, offer: str) -> bool:
        """Whether the constructor of that method names such an offer."""
        cls: Any = self.get(name)
        return offer in _asked(cls)

    def _typed(self, name: str, setting: Setting, value: Value) -> Value:
        if setting.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not _fits(value, setting.type):
            wanted = getattr(setting.type, "__name__", None) if not typing.get_args(setting.type) else None
            raise BadSetting(
                f"{self.name} {name!r}: setting {setting.name}={value!r} is not of type {wanted or setting.type}"
            )
        return value

    def _checked(self, name: str, cls: Any) -> type[Any]:
        base = getattr(importlib.import_module("shoal.core.base"), self.base)
        if not (inspect.isclass(cls) and issubclass(cls, base)):
            raise BadSetting(f"{self.name} {name!r} ({cls!r}) does not derive from shoal.core.base.{self.base}")
        return cls


@cache
def _files(folder: str) -> dict[str, Path]:
    root = Path(__file__).parent.parent / folder
    return {path.stem: path for path in sorted(root.glob("[a-z]*.py"))}


@cache
def _plugins(folder: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"shoal.{folder}"):
        if point.name in _files(folder) or point.name in found:
            raise BadSetting(f"plug-in {point.value!r}: the name {point.name!r} is taken in shoal.{folder}; rename it")
        found[point.name] = point
    return found


def _public_class(module: types.ModuleType) -> type[Any]:
    own = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]
    public = [cls for cls in own if not cls.__name__.startswith("_")]
    if len(public) != 1:
        raise BadSetting(f"{module.__name__}: a method's file has exactly one public class, found {len(public)}")
    return public[0]


@cache
def _settings(cls: Any) -> dict[str, Setting]:
    hints = typing.get_type_hints(cls.__init__)
    found = inspect.signature(cls).parameters.values()
    return {p.name: Setting(p.name, hints.get(p.name, Any), p.default) for p in found if p.kind is p.KEYWORD_ONLY}


@cache
def _asked(cls: Any) -> tuple[str, ...]:
    found = inspect.signature(cls).parameters.values()
    return tuple(p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD)


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a JSON value is of a setting's type: scalars, None, tuples, unions and Literals."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return True
    if wanted is None or wanted is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in args)
    if origin is typing.Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, wanted) or (wanted is float and isinstance(value, int))
