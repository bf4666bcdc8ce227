"""From one line of a log to the kernel line in it, whatever carried it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from fwguardd.ctl.denials import entries
from fwguardd.ctl.denials.event import KernelLine
from fwguardd.ctl.denials.line_heads import read_head
from fwguardd.ctl.denials.other_heads import ProgramLine
from fwguardd.ctl.denials.shipped_objects import read_shipped
from fwguardd.ctl.denials.wrapped_lines import Wrapped, unwrap
from fwguardd.kernel.kmsg import KERNEL_FACILITY, Lost, parse_record

if TYPE_CHECKING:
    from fwguardd.ctl.denials.shipped_objects import Shipped
    from fwguardd.ctl.denials.times import StampReader
    from fwguardd.kernel.kmsg import Record

_Read: TypeAlias = KernelLine | ProgramLine | Wrapped | Lost | None


def read_line(line: bytes, stamps: StampReader) -> _Read:
    """The kernel line in a line of a file; what is left of the line, or None, when nothing shows that the kernel wrote
    it; or the loss that journald reports. Never raises."""
    # Serial consoles and other systems end lines with a carriage return.
    line = line.removesuffix(b"\r")
    if line[:1] == b"{":
        return _from_object(line, stamps)
    if line[:1].isdigit():
        record = parse_record(line)
        if record is not None:
            return _from_record(record, None)
    text = line.decode("latin-1")
    found = read_head(text, stamps)
    if found is not None:
        return found
    return _from_wrapped(unwrap(text, stamps), stamps)


def _from_wrapped(found: KernelLine | Wrapped, stamps: StampReader) -> _Read:
    """The same, of what a line without a common head has."""
    if isinstance(found, KernelLine):
        return found
    data = found.text.encode("latin-1")
    if found.is_json:
        return _from_object(data, stamps)
    record = parse_record(data)
    if record is None:
        return found
    return _from_record(record, found.realtime)


def _from_record(record: Record, realtime: int | None) -> KernelLine | None:
    """The line of a record of /dev/kmsg; None if user space wrote it."""
    if record.facility != KERNEL_FACILITY:
        return None
    return KernelLine(record.text, realtime, record.usec)


def _from_object(line: bytes, stamps: StampReader) -> _Read:
    entry = entries.decoded(line)
    if entry is None:
        return None
    if "__REALTIME_TIMESTAMP" in entry:
        return entries.read_journal(entry)
    shipped = read_shipped(entry, stamps)
    if shipped is None:
        return None
    if "_TRANSPORT" in entry:
        return _from_shipped_journal(entry, shipped)
    if "msg" in entry and not shipped.program:
        return _dated(entries.read_dmesg(entry), shipped)
    return _from_shipped(shipped, stamps)


def _from_shipped_journal(entry: dict[str, Any], shipped: Shipped) -> _Read:
    """An entry of the journal with its own fields, but with the text and the time as the shipper names them."""
    time = str(shipped.realtime or 0)
    found = entries.read_journal({"MESSAGE": shipped.text, **entry, "__REALTIME_TIMESTAMP": time})
    if isinstance(found, KernelLine):
        return found._replace(realtime=shipped.realtime, host=found.host or shipped.host or None)
    return found


def _from_shipped(shipped: Shipped, stamps: StampReader) -> _Read:
    """What a line that another program has put into an object says. An object inside an object is not read."""
    if shipped.program not in ("", "kernel"):
        return ProgramLine(shipped.realtime, shipped.host, shipped.program, shipped.text)
    text = shipped.text.encode("utf-8", "surrogatepass")
    if text[:1] == b"{":
        return None
    found = read_line(text, stamps)
    if shipped.program and not isinstance(found, KernelLine):
        found = read_line(b"kernel: " + text.lstrip(), stamps)
    if isinstance(found, KernelLine):
        return _dated(found, shipped)
    return found


def _dated(line: KernelLine | None, shipped: Shipped) -> KernelLine | None:
    """A line with what the object says, where the text does not say it."""
    if line is None:
        return None
    realtime = line.realtime
    if realtime is None:
        realtime = shipped.realtime
    return line._replace(
        realtime=realtime, host=line.host or shipped.host or None, relayed=line.relayed or shipped.is_relayed
    )
