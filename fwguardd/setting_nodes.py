"""The text of fwguardd.yaml -> nodes of YAML.

Most files are comments and lines such as ``settle: 2s``. These are read here: to import the parser of YAML takes longer
than a tenth of the start of a program. Any other text is left to it.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol, cast

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    import yaml

SCALAR, SEQUENCE, MAPPING = "scalar", "sequence", "mapping"
"""The kinds of nodes."""


class SettingPlace(Protocol):
    """A place in the text."""

    @property
    def line(self) -> int:
        """The line, counted from 0."""


class SettingNode(Protocol):
    """A node as PyYAML makes it (yaml.nodes). ``value`` is a text, a list of nodes, or a list of pairs of nodes."""

    @property
    def id(self) -> str:
        """The kind."""

    @property
    def value(self) -> Any:
        """What it holds."""

    @property
    def start_mark(self) -> SettingPlace:
        """Where it begins."""

    @property
    def style(self) -> str | None:
        """The quotation mark of a scalar; None without one."""


class SettingsTextError(Exception):
    """A text is not YAML. ``line`` is counted from 1, and 0 where it is not known."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class _Place:
    line: int


@dataclass(frozen=True, slots=True)
class _Node:
    id: str
    value: Any
    start_mark: _Place
    style: str | None = None


# Without a colon, a comma or a quotation mark in it, a word that begins with a letter, a digit or "/" is a plain scalar
# (YAML 1.1, 9.1.3). Its type does not matter here: each setting reads the text.
_LINE = re.compile(r"(?:([a-z_]+): +([A-Za-z0-9/][A-Za-z0-9/._-]*))? *(?:(?<!\S)#[ -~]*)?")


def compose(data: bytes) -> SettingNode | None:
    """The root of a text; None where it has none. Raises SettingsTextError, UnicodeDecodeError, and
    RecursionError where it is nested too deeply."""
    text = data.decode("utf-8")
    pairs = _plain_pairs(text.split("\n"))
    if pairs is None:
        return _composed(text)
    if not pairs:
        return None
    return _Node(MAPPING, pairs, pairs[0][0].start_mark)


def _plain_pairs(lines: Sequence[str]) -> list[tuple[_Node, _Node]] | None:
    """The settings of a text that has nothing else but comments; None for another text."""
    pairs: list[tuple[_Node, _Node]] = []
    for number, line in enumerate(lines):
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        if found[1]:
            mark = _Place(number)
            pairs.append((_Node(SCALAR, found[1], mark), _Node(SCALAR, found[2], mark)))
    return pairs


def _composed(text: str) -> SettingNode | None:
    import yaml  # noqa: PLC0415 - see above.

    try:
        return cast("SettingNode | None", yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise _not_yaml(error) from error


def _not_yaml(error: yaml.YAMLError) -> SettingsTextError:
    """The error with the line of the fault, if the parser names it."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return SettingsTextError(0, str(getattr(error, "problem", error)))
    return SettingsTextError(mark.line + 1, str(getattr(error, "problem", error)))
