r"""Entries of a log that are objects or blocks of lines: the other forms of journalctl and dmesg, and container logs.

`single_lines` makes one line, an object of JSON, of every entry that takes several lines: ``journalctl -o export``,
``-o json-pretty`` and ``-o verbose``, and ``dmesg --json``. The first line of a file shows its form. `decoded`
reads such an object, and those that are one line already.

Everything here takes bounded memory, whatever the input, and raises no error.
"""

from __future__ import annotations

import json
import re
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.denials.event import KernelLine
from fwguardd.ctl.denials.other_heads import ProgramLine
from fwguardd.ctl.journal_fields import as_number, as_text
from fwguardd.denials.grammar import kernel_escaped
from fwguardd.kernel.journal_reader import KernelMessage, read_document
from fwguardd.kernel.kmsg import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


LONGEST_ENTRY: Final = 1 << 20
"""Bytes. Of a longer entry the rest is ignored."""

_OPENING: Final = (b"{", b"[")
_INDENTED: Final = re.compile(rb'\s*(?:"[A-Za-z_]+" ?:|\{$)')
_VERBOSE: Final = re.compile(rb"[A-Z][a-z]{2} [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+ [^ ]+ \[s=[0-9a-f]+;i=")


def single_lines(lines: Iterable[bytes]) -> Iterable[bytes]:
    """The lines, with each entry of several lines as one line."""
    iterator = iter(lines)
    first = next(iterator, None)
    if first is None:
        return iterator
    ahead = [first]
    if first.strip() in _OPENING:
        # Only the next line shows whether this begins an object.
        ahead += islice(iterator, 1)
    rest = chain(ahead, iterator)
    form = _form(first, ahead[-1])
    if form is None:
        return rest
    return form(rest)


def is_single(first: bytes) -> bool:
    """Whether every line is an entry of its own, where a file begins with this line."""
    return first.strip() not in _OPENING and _form(first, b"") is None


def _form(first: bytes, second: bytes) -> Callable[[Iterator[bytes]], Iterator[bytes]] | None:
    if first.startswith(b"__CURSOR="):
        return _from_export
    if first.strip() in _OPENING and _INDENTED.match(second):
        return _from_indented
    if _VERBOSE.match(first):
        return _from_verbose
    return None


def _from_export(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Blocks of ``NAME=value``, each followed by an empty line. A value that is not text has its length in eight bytes
    before it, little-endian (systemd's JOURNAL_EXPORT_FORMATS)."""
    fields: dict[str, object] = {}
    for line in lines:
        name, equals, value = line.partition(b"=")
        if not line:
            yield _encoded(fields)
            fields = {}
        elif equals:
            _add(fields, name, value)
        else:
            _add(fields, name, _sized_value(lines))
    if fields:
        yield _encoded(fields)


def _is_whole(data: bytes) -> bool:
    """Whether a value that begins with its length is followed by as many bytes and the line break after them."""
    return len(data) > 8 and len(data) > 8 + int.from_bytes(data[:8], "little")


def _sized_value(lines: Iterator[bytes]) -> bytes:
    """The bytes of a value, which line breaks may be a part of."""
    data = b""
    for line in lines:
        data += line + b"\n"
        if len(data) > LONGEST_ENTRY or _is_whole(data):
            break
    return data[8:-1]


def _add(fields: dict[str, object], name: bytes, value: bytes) -> None:
    key = name.decode("ascii", "replace")
    try:
        found: object = value.decode()
    except UnicodeDecodeError:
        found = list(value)
    if key in fields:
        # A field that stands twice has two values, and is not the field of a kernel message.
        found = [fields[key], found]
    fields[key] = found


def _encoded(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")


_KEY: Final = re.compile(rb'^("[A-Za-z0-9_]{1,64}") *: *')


def _begins_object(text: bytes) -> bool:
    """Whether an object or a list begins in a line."""
    return text.endswith(_OPENING) and not _is_value(text)


def _from_indented(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Objects over several lines. Those of dmesg are elements of a list in an object."""
    parts: list[bytes] = []
    size = 0
    for line in lines:
        text = line.strip()
        if text == b"]" and not parts:
            continue
        if text.startswith(b"}"):
            if parts:
                yield b"{%b}" % b" ".join(parts)
            parts, size = [], 0
        elif _begins_object(text):
            parts, size = [], 0
        elif size < LONGEST_ENTRY:
            # Written as journalctl writes it on one line.
            parts.append(_KEY.sub(rb"\1:", text, count=1))
            size += len(text)


def _is_value(text: bytes) -> bool:
    """Whether a line is a value that begins with a bracket: a list of bytes."""
    return text.startswith(b'"') and not text.startswith(b'"dmesg"')


_FIELD: Final = re.compile(rb" {4}([A-Z0-9_]{1,64})=(.*)", re.DOTALL)
_REALTIME: Final = re.compile(rb";t=([0-9a-f]{1,16})[;\]]")


def _time_fields(line: bytes) -> dict[str, object]:
    """What the first line of an entry says."""
    time = _REALTIME.search(line)
    if time is None:
        return {}
    return {"__REALTIME_TIMESTAMP": str(int(time[1], 16))}


def _from_verbose(lines: Iterator[bytes]) -> Iterator[bytes]:
    """A line with time and cursor, and below it the fields. The first line has the time in microseconds, as `t`."""
    fields: dict[str, object] = {}
    for line in lines:
        field = _FIELD.match(line)
        if field is not None:
            _add(fields, field[1], field[2])
            continue
        if not _VERBOSE.match(line):
            continue
        if fields:
            yield _encoded(fields)
        fields = _time_fields(line)
    if fields:
        yield _encoded(fields)


def decoded(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None for everything else."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(entry, dict):
        return entry
    return None


def read_journal(entry: dict[str, Any]) -> KernelLine | ProgramLine | Lost:
    """An entry of the journal. User space can write to the kernel log, but not as facility 0 (kernel)."""
    found = read_document(entry)
    if isinstance(found, KernelMessage):
        host = as_text(entry.get("_HOSTNAME")) or None
        return KernelLine(kernel_escaped(found.message), round(found.when * 1_000_000), None, host)
    if isinstance(found, Lost):
        return found
    realtime = as_number(entry.get("__REALTIME_TIMESTAMP"))
    return ProgramLine(realtime, as_text(entry.get("_HOSTNAME")), _program(entry), as_text(entry.get("MESSAGE")))


def _program(entry: dict[str, Any]) -> str:
    """The name of the program that wrote an entry; ``user`` for what user space has written to the kernel log."""
    if entry.get("_TRANSPORT") == "kernel":
        return "user"
    return as_text(entry.get("SYSLOG_IDENTIFIER"))


def read_dmesg(entry: dict[str, Any]) -> KernelLine | None:
    """A record of ``dmesg --json``. With --decode it names the facility; without, its priority has both in one
    number."""
    text = entry.get("msg")
    if not isinstance(text, str) or not _is_of_kernel(entry):
        return None
    # Of a file, some versions of dmesg print all that follows in the file.
    text = text.partition("\n")[0]
    spelled = kernel_escaped(text.encode("utf-8", "surrogatepass")).replace(r"\x5cx", r"\x")
    return KernelLine(spelled, None, _uptime(entry.get("time")))


def _is_of_kernel(entry: dict[str, Any]) -> bool:
    """Whether a record of dmesg is of the facility 0 (kernel)."""
    priority = entry.get("pri")
    if isinstance(priority, int) and priority > 7:
        return False
    return bool(entry.get("fac", "kern") == "kern")


def _uptime(seconds: object) -> int | None:
    """The time of a record of dmesg, in microseconds."""
    if isinstance(seconds, float) and 0 <= seconds < 1e12:
        return round(seconds * 1_000_000)
    return None
