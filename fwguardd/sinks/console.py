"""Events for a person at a terminal: a time, a mark for how much it matters, the sentence, and details below it.

Whatever an event carries may come from a hostile packet or file name, so control characters are shown escaped.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_MARKS = {
    3: ("error", "\x1b[1;31m"),
    4: ("warn", "\x1b[33m"),
    5: ("note", "\x1b[32m"),
    6: ("info", "\x1b[36m"),
    7: ("debug", "\x1b[2m"),
}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"
_DETAILS = ("finding", "difference")


class ConsoleRenderer:
    """A structlog renderer: an event as one line, and one more for each finding or difference."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        """The text to print."""
        word, colour = _MARKS.get(event["priority"], _MARKS[6])
        clock = str(event["timestamp"])[11:19]
        head = f"{self._paint(_DIM, clock)} {self._paint(colour, f'{word:5}')} {printable(event['message'])}"
        name = self._paint(_DIM, f"[{event['event']}]")
        details = [text for key in _DETAILS for text in event.get(key, ()) if text not in event["message"]]
        return "\n".join([f"{head} {name}", *(f"{'':15}{printable(text)}" for text in details)])

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours else text


def printable(text: str) -> str:
    """The text with everything that could move a terminal's cursor escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
