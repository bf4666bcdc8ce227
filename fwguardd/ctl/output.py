"""Standard output and error of fwguardctl, in any encoding."""

from __future__ import annotations

import codecs
import io
import sys

_ASCII = {"→": "->", "…": "...", "–": "-", "—": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "·": "-", "×": "x"}
_ERRORS = "fwguardctl-terminal"


def show_what_the_terminal_can() -> None:
    """Print characters that the encoding of the output lacks in ASCII, or as an escape, not as an error."""
    codecs.register_error(_ERRORS, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors=_ERRORS)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What to print for the characters that cannot be encoded (codecs.register_error())."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown: list[str] = []
    for character in error.object[error.start : error.end]:
        escape = character.encode("ascii", "backslashreplace").decode("ascii")
        shown.append(_ASCII.get(character, escape))
    return "".join(shown), error.end
