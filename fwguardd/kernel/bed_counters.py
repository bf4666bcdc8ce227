"""What replaces the trace in a bed whose kernel reports none: a log of the hooks, and the counters of the rules.

The chains of the bed log each packet by nfnetlink_log, so where it went and whether it arrived is seen, and what NAT
made of it. The rules are iptables', and their counters come from iptables-save, before and after each packet, which is
therefore sent alone: `fwguardd.packets.counted` makes its way of them.
"""

from __future__ import annotations

import contextlib
import re
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fwguardd.kernel.bed_hooks import BARRIER, FORWARD_START, INPUT_START, OUTPUT, START, TABLE, log_at_hooks
from fwguardd.kernel.legacy_trace import headers_of
from fwguardd.kernel.nflog import PacketLog
from fwguardd.kernel.nflog_message import LoggedPacket
from fwguardd.kernel.nft_trace import RECEIVE_BYTES, TraceMessage
from fwguardd.kernel.processes import Command, Running, save_argv
from fwguardd.packets.model import Packet
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fwguardd.kernel.kmsg import Lost

_GROUP: Final = 1
_LIMIT: Final = 1 << 20
_SECONDS: Final = 60.0
_RULE: Final = re.compile(r"\[([0-9]+):[0-9]+\] -A ([^ ]+)")
_SMALLEST_HEADER: Final = 20
HOOKS: Final = {START: "PREROUTING", INPUT_START: "INPUT", FORWARD_START: "FORWARD", OUTPUT: "OUTPUT"}
"""The hooks that chains of the bed are the start of."""

_NET: Final = Path("/proc/thread-self/net")
_NAMES: Final = {Family.IPV4: _NET / "ip_tables_names", Family.IPV6: _NET / "ip6_tables_names"}
_LOOPBACK: Final = {Family.IPV4: ip_address("127.0.0.1"), Family.IPV6: ip_address("::1")}

_Place = tuple[str, str, int]
"""Table, chain and position of a rule."""


class Observed(Protocol):
    """A packet that was sent, with its trace."""

    messages: list[TraceMessage]


def is_traced(send: Callable[[Sequence[Packet]], Sequence[Observed]]) -> bool:
    """Whether legacy iptables traces packets, by one of each family that has tables: a kernel may be built without
    that. Raises OSError."""
    families = [family for family, path in _NAMES.items() if _text(path)]
    packets = [Packet(family, "udp", _LOOPBACK[family], _LOOPBACK[family], 9, 9, "lo") for family in families]
    if not packets:
        return True
    return any(message.table != TABLE for one in send(packets) for message in one.messages)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text("ascii")
    return ""


class HookLog:
    """The log of the hooks, in place of `fwguardd.kernel.nft_trace.NftTraces`."""

    def __init__(self) -> None:
        """Let the chains of the bed log. Raises OSError, `fwguardd.kernel.nflog.PacketLogError`."""
        self._log = PacketLog(_GROUP, RECEIVE_BYTES, at_once=True)
        log_at_hooks(_GROUP)

    def fileno(self) -> int:
        """The descriptor, readable while there are messages."""
        return self._log.fileno()

    def read(self) -> list[TraceMessage]:
        """What has arrived: a message for each chain of the bed that a packet came to."""
        found: list[TraceMessage] = []
        for logged in self._log.read_available(_LIMIT):
            found += _message(logged)
        return found


def _message(packet: LoggedPacket | Lost) -> Iterator[TraceMessage]:
    if not isinstance(packet, LoggedPacket) or len(packet.payload) < _SMALLEST_HEADER:
        return
    chain = packet.prefix.decode("ascii", "replace")
    number, view = headers_of(packet)
    if chain == BARRIER:
        yield TraceMessage(number, view, TABLE, START, None, "drop")
    else:
        yield TraceMessage(number, view, TABLE, chain, None, "accept")


class RuleCounters:
    """The counters of the rules of this network namespace."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._known: dict[int, dict[_Place, int]] = {}

    def forget(self) -> None:
        """Other rules were loaded."""
        self._known.clear()

    def begin(self, version: int) -> None:
        """A packet of IPv4 or IPv6 is about to be sent. Raises ProgramError."""
        if version not in self._known:
            self._known[version] = self._read(version)

    def moved(self, version: int) -> list[list[str | int]]:
        """Table, chain, position and number of packets of each rule whose counter has moved. Raises ProgramError."""
        before, after = self._known[version], self._read(version)
        self._known[version] = after
        return [[*place, packets - before[place]] for place, packets in after.items() if packets != before[place]]

    def _read(self, version: int) -> dict[_Place, int]:
        finished = Running(Command(save_argv(self._backend, version))).finish(time.monotonic() + _SECONDS)
        return dict(counters_in(finished.stdout.splitlines()))


def counters_in(lines: Sequence[str]) -> Iterator[tuple[_Place, int]]:
    """The packets that each rule in the output of iptables-save has counted."""
    table = ""
    positions: dict[str, int] = {}
    for line in lines:
        if line.startswith("*"):
            table, positions = line[1:], {}
        rule = _RULE.match(line)
        if rule is not None:
            chain = rule[2]
            positions[chain] = positions.get(chain, 0) + 1
            yield (table, chain, positions[chain]), int(rule[1])
