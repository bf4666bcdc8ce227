"""The bytes of a rule file -> lines of text, or the reason why they are none.

What iptables-restore 1.8.9 would misread without a word is refused here: a NUL drops the rest of its line, a carriage
return becomes part of the last word, another encoding than UTF-8 becomes who knows what.
"""

from __future__ import annotations

import re

from fwguardd.ruleset.model import Finding, Origin

MOST_LINES = 200_000
"""Lines of one file. What has more is a list of addresses, for which the kernel has sets."""

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")


def unusable_file(path: str, data: bytes) -> Finding | None:
    """What makes the file as a whole unreadable: encodings and bytes that iptables-restore would misread."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or _is_mostly_nul(data):
        return Finding("utf-16", "the file is UTF-16 text", Origin(path, 1), hint="save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        hint = "save it as UTF-8 without a byte order mark"
        return Finding("byte-order-mark", "the file starts with a byte order mark", Origin(path, 1), hint=hint)
    if b"\0" in data or b"\r" in data:
        return _misread_byte(path, data)
    lines = data.count(b"\n")
    if lines > MOST_LINES:
        message = f"{lines:,} lines are more than a rule file may have ({MOST_LINES:,})"
        return Finding("too-many-lines", message, Origin(path, 0), hint="use an ipset for long lists of addresses")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the line holds the byte 0x{data[error.start]:02X}, which is not UTF-8 here"
        hint = f"save the file as UTF-8; from Latin-1: iconv -f latin1 -t utf-8 -o NEW {_in_a_shell(path)}"
        return Finding("bad-utf-8", message, _origin_at(path, data, error.start), hint=hint)
    return None


def _is_mostly_nul(data: bytes) -> bool:
    """Whether it is UTF-16 without its mark: of Latin text every second byte is NUL."""
    return data.count(b"\0") * 3 > len(data)


def _misread_byte(path: str, data: bytes) -> Finding:
    """A NUL or a carriage return that iptables would misread; line ends of Windows are of the whole file."""
    position = data.find(b"\0")
    if position >= 0:
        hint = "write the line anew: iptables would drop what comes after that byte"
        return Finding("nul-byte", "the line holds a NUL byte", _origin_at(path, data, position), hint=hint)
    if data.count(b"\r") == data.count(b"\r\n"):
        hint = f"convert it with: sed -i 's/\\r$//' {_in_a_shell(path)}"
        origin = _origin_at(path, data, data.find(b"\r"))
        return Finding("carriage-return", "the file has Windows line ends", origin, hint=hint)
    # Told at the first that ends no line: the command would do nothing about it.
    position = data.replace(b"\r\n", b"  ").find(b"\r")
    hint = "write the line anew: iptables would take it for a letter"
    return Finding("carriage-return", "the line holds a carriage return", _origin_at(path, data, position), hint=hint)


def _in_a_shell(path: str) -> str:
    """The path as a word for a shell; FILE where it would have to be quoted."""
    return path if _PLAIN_PATH.fullmatch(path) else "FILE"


def _origin_at(path: str, data: bytes, position: int) -> Origin:
    return Origin(path, data.count(b"\n", 0, position) + 1)
