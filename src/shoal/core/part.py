"""Part: a name with settings, the atom of configuration.

    mlp                          Part("mlp")
    mlp[act=relu,hidden=64]      Part("mlp", {"hidden": 64, "act": "relu"})

Settings are JSON values: None, True, 3, 0.5, a word, or a list of them. The text form needs no quotes unless a word
holds one of ``[](),=|@*`` or looks like another value; then it is written as a JSON string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from shoal.core.errors import BadSpec

Value: TypeAlias = "bool | int | float | str | tuple[Value, ...] | None"

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./:-]*")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|inf|nan)")
_KEYWORDS: dict[str, Value] = {"none": None, "true": True, "false": False}


@dataclass(frozen=True)
class Part:
    """A name with settings. Lists become tuples, so that a Part is hashable and never changes."""

    name: str
    settings: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise BadSpec(f"part {self.name!r}: a name is lower case letters, digits and _, such as gated_mlp")
        frozen = {key: freeze(self.settings[key]) for key in sorted(self.settings)}
        object.__setattr__(self, "settings", MappingProxyType(frozen))

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.settings.items())))

    def __str__(self) -> str:
        inside = ",".join(f"{key}={format_value(value)}" for key, value in self.settings.items())
        return f"{self.name}[{inside}]" if inside else self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (Part, (self.name, dict(self.settings)))  # a MappingProxyType alone cannot be copied

    def with_settings(self, **settings: Any) -> Part:
        """The same part with some settings replaced."""
        return Part(self.name, {**self.settings, **settings})

    def to_json(self) -> dict[str, Any]:
        """``{"name": ..., "settings": {...}}`` with lists for tuples."""
        return {"name": self.name, "settings": {k: thaw(v) for k, v in self.settings.items()}}

    @classmethod
    def from_json(cls, data: Any) -> Part:
        """The inverse of :meth:`to_json`; a plain string is read as text."""
        if isinstance(data, str):
            return cls.parse(data)
        if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
            raise BadSpec(f"part {data!r}: expected an object with 'name' and 'settings'")
        return cls(data["name"], data.get("settings", {}))

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``name[key=value,...]``."""
        reader = Reader(text)
        part = reader.part()
        reader.end()
        return part


def freeze(value: Any) -> Value:
    """A JSON value with tuples for lists; anything else is refused."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    raise BadSpec(f"setting value {value!r}: only None, booleans, numbers, words and lists of them can be settings")


def thaw(value: Value) -> Any:
    """The inverse of :func:`freeze`: lists for tuples."""
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


def format_value(value: Value) -> str:
    """A setting's value as text, such that :meth:`Reader.value` gives it back."""
    if isinstance(value, tuple):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = _WORD.fullmatch(value) and value not in _KEYWORDS and not _NUMBER.fullmatch(value)
        return value if plain else json.dumps(value)
    return repr(value)


class Reader:
    """Reads the text forms of parts and specs; every error says where, and what was expected."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def fail(self, expected: str) -> BadSpec:
        rest = self.text[self.at : self.at + 20] or "the end"
        return BadSpec(f"spec {self.text!r}: expected {expected} at character {self.at + 1}, found {rest!r}")

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def peek(self, token: str) -> bool:
        self.space()
        return self.text.startswith(token, self.at)

    def take(self, token: str) -> bool:
        found = self.peek(token)
        if found:
            self.at += len(token)
        return found

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.fail(repr(token))

    def match(self, pattern: re.Pattern[str], expected: str) -> str:
        self.space()
        found = pattern.match(self.text, self.at)
        if not found:
            raise self.fail(expected)
        self.at = found.end()
        return found.group()

    def integer(self, expected: str) -> int:
        return int(self.match(re.compile(r"\d+"), expected))

    def end(self) -> None:
        self.space()
        if self.at < len(self.text):
            raise self.fail("the end")

    def part(self) -> Part:
        name = self.match(re.compile(r"[a-z][a-z0-9_]*"), "a name such as mlp")
        return Part(name, self.settings())

    def settings(self) -> dict[str, Value]:
        settings: dict[str, Value] = {}
        if not self.take("["):
            return settings
        while not self.take("]"):
            key = self.match(re.compile(r"[a-z][a-z0-9_]*"), "a setting's name")
            if key in settings:
                raise BadSpec(f"spec {self.text!r}: setting {key!r} is given twice; keep one")
            self.expect("=")
            settings[key] = self.value()
            if not self.peek("]"):
                self.expect(",")
        return settings

    def value(self) -> Value:
        if self.take("["):
            items: list[Value] = []
            while not self.take("]"):
                items.append(self.value())
                if not self.peek("]"):
                    self.expect(",")
            return tuple(items)
        if self.peek('"'):
            try:
                word, used = json.JSONDecoder().raw_decode(self.text[self.at :])
            except json.JSONDecodeError:
                raise self.fail("a closed JSON string") from None
            self.at += used
            return str(word)
        number = _NUMBER.match(self.text, self.at)
        word = _WORD.match(self.text, self.at)
        if number and (not word or number.end() >= word.end()):
            self.at = number.end()
            try:
                return int(number.group())
            except ValueError:
                return float(number.group())
        found = self.match(_WORD, "a value: a number, a word, a list or a quoted string")
        return _KEYWORDS.get(found, found)
