"""The packet of a denial that fwguardd has reported to the journal."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.denials.event import EVENT_NAMES, from_entry
from fwguardd.ctl.journal_query import Query, entries_in_journal
from fwguardd.errors import ReportedError
from fwguardd.packets.denied import packet_of_denial

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.ctl.denials.event import Event
    from fwguardd.packets.model import Packet

_SEARCHED: Final = ("15 min ago", "24 hours ago", "90 days ago")
"""How far back the journal is searched for the last denial: the newest part is read first."""


class DenialNotFoundError(ReportedError):
    """The journal has no such denial."""


def recent_denials(since: str) -> Iterator[Mapping[str, Any]]:
    """The fields of the denials since a time, as journalctl takes it, oldest first. Raises UnreadableError."""
    entries = entries_in_journal(Query(EVENT_NAMES, since=since))
    for event in filter(_is_denial, filter(None, map(from_entry, entries))):
        yield event.fields


def _is_denial(event: Event) -> bool:
    return event.is_of_packets and event.meaning == "denied"


def denied_packet(wanted: str | None) -> Packet:
    """The packet of the denial with this number in the kernel log; None is the last one.

    Raises DenialNotFoundError, and UnreadableError where the journal cannot be read.
    """
    for since in _SEARCHED:
        fields = deque(filter(partial(_is_wanted, wanted), recent_denials(since)), maxlen=1)
        for packet in filter(None, map(packet_of_denial, fields)):
            return packet
    if wanted is None:
        raise DenialNotFoundError("the journal has no denial whose packet can be sent; describe the packet in words")
    advice = "see kmsg_seq in: fwguardctl denials --json"
    raise DenialNotFoundError(f"the journal has no denial with the number {wanted}; {advice}")


def _is_wanted(wanted: str | None, fields: Mapping[str, Any]) -> bool:
    """Whether it is the denial with this number, and has a packet."""
    return wanted in (None, str(fields.get("kmsg_seq"))) and packet_of_denial(fields) is not None
