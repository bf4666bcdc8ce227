"""HTML and SVG as values. A `str` is text, and is escaped; only `Markup`, which `element` makes, is markup.

This module is pure.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.escaping import printable
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Markup:
    """A piece of HTML or SVG. Only this module and constants make one of a text that is not escaped."""

    text: str


Part: TypeAlias = "Markup | str"

_VOID: Final = {"meta": ">\n", "rect": "/>", "path": "/>", "line": "/>"}
"""Elements without content, and how they end: as HTML has them, or as SVG in HTML closes them."""

_LINES: Final = frozenset(
    {"title", "tr", "thead", "tbody", "table", "li", "g", "svg", "p", "dl", "nav", "section", "header"}
)
"""Elements after which a line ends, for those who read the source."""


def element(name: str, /, *parts: Part, **attributes: str | float) -> Markup:
    """An element with its content. An underscore at the end of the name of an attribute is left out, and one within it
    is a dash: ``class_``, ``aria_label``."""
    words = [name]
    for key, value in attributes.items():
        words.append(f'{key.rstrip("_").replace("_", "-")}="{_text(str(value))}"')
    head = " ".join(words)
    if name in _VOID:
        return Markup(f"<{head}{_VOID[name]}")
    end = ""
    if name in _LINES:
        end = "\n"
    return Markup(f"<{head}>{joined(parts).text}</{name}>{end}")


def joined(parts: Iterable[Part]) -> Markup:
    """The parts one after the other."""
    return Markup("".join(map(_rendered, parts)))


def _rendered(part: Part) -> str:
    if isinstance(part, Markup):
        return part.text
    return _text(part)


def _text(text: str) -> str:
    """A text with everything escaped that HTML would take for markup, and control characters as in a terminal."""
    return escape(printable(text))
