"""The bytes of a rule file -> lines of text, or the reason why they are none.

What iptables-restore 1.8.9 would misread without a word is refused here: a NUL drops the rest of its line, a carriage
return becomes part of the last word, another encoding than UTF-8 becomes who knows what.
"""

from __future__ import annotations

from fwguardd.ruleset.model import Finding, Origin

MOST_LINES = 200_000
"""Lines of one file. What has more is a list of addresses, for which the kernel has sets."""


def unusable_file(path: str, data: bytes) -> Finding | None:
    """What makes the file as a whole unreadable: encodings and bytes that iptables-restore would misread."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Finding("utf-16", "the file is UTF-16 text", Origin(path, 1), hint="save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        hint = "save it as UTF-8 without a byte order mark"
        return Finding("byte-order-mark", "the file starts with a byte order mark", Origin(path, 1), hint=hint)
    for code, byte, name, hint in (
        ("nul-byte", b"\0", "NUL byte", "iptables would drop the rest of the line; write it anew as plain text"),
        ("carriage-return", b"\r", "carriage return (Windows line end)", "convert it with: sed -i 's/\\r$//' FILE"),
    ):
        position = data.find(byte)
        if position >= 0:
            return Finding(code, f"the line holds a {name}", _origin_at(path, data, position), hint=hint)
    lines = data.count(b"\n")
    if lines > MOST_LINES:
        message = f"{lines:,} lines are more than a rule file may have ({MOST_LINES:,})"
        return Finding("too-many-lines", message, Origin(path, 0), hint="use an ipset for long lists of addresses")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Finding(
            "bad-utf-8",
            f"the line is not UTF-8: {error.reason}",
            _origin_at(path, data, error.start),
            hint="save it as UTF-8",
        )
    return None


def _origin_at(path: str, data: bytes, position: int) -> Origin:
    return Origin(path, data.count(b"\n", 0, position) + 1)
