"""Events for a terminal: the time, the priority in one word, the message, the name, and details on lines below.

The values of an event can come from a hostile packet or file name, so control characters are shown escaped.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwguardd.escaping import printable

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
        lines = [f"{head} {name}"]
        for key in _DETAILS:
            lines += [f"{'':15}{printable(text)}" for text in event.get(key, ()) if text not in event["message"]]
        return "\n".join(lines)

    def _paint(self, colour: str, text: str) -> str:
        if not self._colours:
            return text
        return f"{colour}{text}{_RESET}"
