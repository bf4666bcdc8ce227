"""The bed inside a rehearsal namespace: it rebuilds the host's network, sends packets, and reads what became of them.

It is a part of the rehearsal worker (`fwguardd.kernel.rehearsal_worker`) and ends with it. Packets are sent in
batches. A frame behind the last one shows that all of them have been processed. Packets that need an entry in the
connection table are in batches of their own, so that no packet meets the connection of another one.

Where the kernel reports no trace, of its own or of legacy iptables, packets are sent one by one, and the counters of
the rules are read after each (`fwguardd.kernel.bed_counters`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import time
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Final

from fwguardd.kernel.bed_counters import HOOKS, HookLog, RuleCounters, is_traced
from fwguardd.kernel.bed_handles import BedHandles
from fwguardd.kernel.bed_hooks import (
    BEFORE_ROUTING,
    INPUT_START,
    LOCAL_END,
    OUT_END,
    OUTPUT,
    START,
    TABLE,
    install_hooks,
)
from fwguardd.kernel.bed_network import BedNetwork
from fwguardd.kernel.bed_sender import NotSentError, Sender
from fwguardd.kernel.conntrack_entries import Connections, NoEntryError, entries_for
from fwguardd.kernel.legacy_trace import LegacyTraces
from fwguardd.kernel.netlink import OverrunError
from fwguardd.kernel.nft_trace import NftTraces
from fwguardd.kernel.route_query import NO_ROUTE, why_not_routed
from fwguardd.packets.batches import batches
from fwguardd.packets.documents import packet_of
from fwguardd.packets.frames import LAST_NUMBER
from fwguardd.packets.host import Host
from fwguardd.packets.model import SYN, ConnectionState
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.kernel.bed_edits import EditDocument
    from fwguardd.kernel.nft_trace import TraceMessage, View
    from fwguardd.packets.model import Packet

BATCH: Final = 20
"""Packets that are sent before their traces are read."""
_BARRIER_SECONDS: Final = 10.0
"""How long the kernel may take to process a batch."""
_LATE_SECONDS: Final = 0.05
"""How long an unfinished packet of a batch may be late: only where the process cannot stay on one processor."""
_TIMEOUT: Final = "the kernel did not finish with the packets in time"
_FIRST_SECONDS: Final = 2.0
"""How long the first frame may take before the kernel counts as one that reports no trace."""
_NO_TRACE: Final = "the kernel neither traces nor logs packets in nf_tables, so what becomes of them cannot be seen"
_LOST: Final = "the trace has more messages than the kernel could keep"


@dataclass(slots=True)
class _Sent:
    """A packet that was sent, and what its trace says."""

    packet: Packet
    number: int
    messages: list[TraceMessage] = field(default_factory=list)
    counted: list[list[str | int]] = field(default_factory=list)
    undecided: str = ""
    unsent: str = ""


class BedWorker:
    """The bed of this process's network namespace."""

    def __init__(self, host: Mapping[str, Any], backend: str, within: float = _FIRST_SECONDS) -> None:
        """Rebuild the network of the host that a document describes, and start to trace.

        Raises OSError, also where neither a trace nor a log comes ``within`` so many seconds; HostError, and
        `fwguardd.kernel.nflog.PacketLogError`.
        """
        self._network = BedNetwork(Host.of(host))
        self._backend = backend
        install_hooks()
        self._handles = BedHandles()
        self._hooks: NftTraces | HookLog = NftTraces(self._handles)
        self._legacy: LegacyTraces | None = None
        self._counters: RuleCounters | None = None
        self._connections = Connections()
        self._sender = Sender(self._network, self._handles.pass_over_commit)
        self._number = 0
        self._translates = False
        self._translations: dict[Packet, View] = {}
        """How the first packet of a connection looked at its last hook."""
        if not self._passes_barrier(within):
            self._count()
            if not self._passes_barrier(within):
                raise OSError(errno.ENODATA, _NO_TRACE)
        elif backend == "legacy":
            self._legacy = LegacyTraces()
        self._pinned = _stay_on_this_processor()

    def _passes_barrier(self, within: float) -> bool:
        """Whether the frame that is sent last is seen in time."""
        self._sender.send_barrier()
        return self._read_up_to_barrier({}, within)

    def _count(self) -> None:
        """Go on without a trace. Raises OSError, PacketLogError."""
        self._legacy = None
        self._hooks, self._counters = HookLog(), RuleCounters(self._backend)

    @property
    def left_out(self) -> list[str]:
        """What of the host's network could not be rebuilt."""
        return self._network.left_out

    def learn_rules(self, *, translates: bool) -> None:
        """Read the rules, after they were loaded. ``translates`` says whether they have NAT. Raises OSError."""
        self._translates = translates
        if self._legacy is not None and not is_traced(self._send_together):
            self._count()
        if self._counters is not None:
            self._counters.forget()
        elif self._legacy is None and isinstance(self._hooks, NftTraces):
            self._handles.learn()
            self._hooks.forget_packets()

    def edit(self, documents: Sequence[EditDocument], *, translates: bool) -> bool:
        """Edit the rules over netlink; False where they have to be loaded by iptables, and nothing was changed. Raises
        OSError where this bed must not be used any more."""
        if self._legacy is not None or not isinstance(self._hooks, NftTraces) or not self._handles.edit(documents):
            return False
        self._translates = translates
        self._hooks.forget_packets()
        return True

    def send(self, documents: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """What became of each packet. Raises OSError."""
        packets = [packet_of(document) for document in documents]
        if self._translates:
            self._learn_translations(packets)
        sent = self._send_in_batches(packets)
        self._translations.clear()
        return list(map(self._result, sent))

    def _learn_translations(self, packets: Sequence[Packet]) -> None:
        """Send the first packets of the established connections: NAT decides about a connection when it begins."""
        established = [packet for packet in packets if packet.state is ConnectionState.ESTABLISHED]
        first = [replace(packet, state=ConnectionState.NEW, flags=SYN) for packet in established]
        for packet, one in zip(established, self._send_in_batches(first), strict=True):
            if one.messages:
                self._translations[packet] = one.messages[-1].view

    def _send_in_batches(self, packets: Sequence[Packet]) -> list[_Sent]:
        results: dict[int, _Sent] = {}
        for batch in batches(packets, self._at_once):
            results |= zip(batch, self._send_batch([packets[place] for place in batch]), strict=True)
        return [results[place] for place in range(len(packets))]

    @property
    def _at_once(self) -> int:
        if self._counters is not None:
            return 1
        return BATCH

    def _send_batch(self, packets: Sequence[Packet]) -> list[_Sent]:
        """Send a batch; one by one if the trace of all was too long."""
        try:
            return self._send_together(packets)
        except OverrunError:
            if len(packets) == 1:
                return [_Sent(packets[0], 0, undecided=_LOST)]
        sent: list[_Sent] = []
        for packet in packets:
            self._discard()
            sent += self._send_batch([packet])
        return sent

    def _send_together(self, packets: Sequence[Packet]) -> list[_Sent]:
        """Send packets and read their traces. Raises OverrunError, OSError."""
        sent = [_Sent(packet, self._next_number()) for packet in packets]
        try:
            with self._counted(sent):
                for one in sent:
                    self._send_one(one)
                self._collect({one.number: one for one in sent})
        finally:
            self._connections.remove_all()
        return sent

    @contextlib.contextmanager
    def _counted(self, sent: Sequence[_Sent]) -> Iterator[None]:
        """Without a trace, give the one packet that is sent meanwhile the counters that it has moved."""
        if self._counters is None:
            yield
            return
        version = sent[0].packet.source.version
        self._counters.begin(version)
        yield
        sent[0].counted = self._counters.moved(version)

    def _send_one(self, one: _Sent) -> None:
        try:
            view = self._translations.get(one.packet)
            self._connections.make(entries_for(one.packet, one.number, view))
            one.unsent = self._sender.send(one.packet, one.number)
        except (NoEntryError, NotSentError) as error:
            one.undecided = str(error)
        except OSError as error:
            one.undecided = f"the packet cannot be sent: {error.strerror or error}"

    def _collect(self, sent: Mapping[int, _Sent]) -> None:
        """Give each packet its messages. Raises OverrunError."""
        self._sender.send_barrier()
        passed = self._read_up_to_barrier(sent, _BARRIER_SECONDS)
        if not self._pinned:
            self._wait_for_late(sent)
        if not passed:
            for one in sent.values():
                one.undecided = one.undecided or _TIMEOUT

    def _read_up_to_barrier(self, sent: Mapping[int, _Sent], within: float) -> bool:
        """Whether the barrier came within so many seconds. Raises OverrunError."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            if self._read(sent):
                return True
            self._wait(end - time.monotonic())
        return False

    def _wait_for_late(self, sent: Mapping[int, _Sent]) -> None:
        """Another processor may still work on a packet."""
        end = time.monotonic() + _LATE_SECONDS
        while time.monotonic() < end and any(not _finished(one) for one in sent.values()):
            self._wait(0.005)
            self._read(sent)

    def _wait(self, seconds: float) -> None:
        select.select([self._hooks], [], [], max(seconds, 0))

    def _read(self, sent: Mapping[int, _Sent]) -> bool:
        """Read what has arrived; whether the barrier is among it. Raises OverrunError."""
        passed = False
        messages = self._hooks.read()
        if self._legacy is not None:
            # The trace of legacy iptables comes between that of the first and the last chain.
            messages = _in_order(messages, self._legacy.read())
        for message in messages:
            if message.number in sent:
                sent[message.number].messages.append(message)
            elif message.chain == START and message.outcome == "drop":
                passed = True
        return passed

    def _discard(self) -> None:
        """Throw away what has arrived."""
        while True:
            try:
                self._sender.send_barrier()
                while not self._read({}):
                    self._wait(_BARRIER_SECONDS)
            except OverrunError:
                continue
            return

    def _next_number(self) -> int:
        self._number = self._number % LAST_NUMBER + 1
        return self._number

    def _result(self, one: _Sent) -> dict[str, Any]:
        """What became of a packet, as JSON values: `fwguardd.packets.traces` reads them."""
        if one.undecided:
            return {"undecided": one.undecided}
        views: dict[View, int] = {}
        steps: list[list[Any]] = []
        ends: dict[str, TraceMessage] = {}
        for message in one.messages:
            if message.table == TABLE:
                ends[message.chain] = message
            else:
                view = views.setdefault(message.view, len(views))
                steps.append([message.table, message.chain, message.position, message.outcome, view])
        if self._counters is not None:
            return self._counted_result(one, ends)
        return {"steps": steps, "views": list(map(self._view, views)), **self._end(one, ends)}

    def _counted_result(self, one: _Sent, ends: Mapping[str, TraceMessage]) -> dict[str, Any]:
        """The same without a trace: counters in place of steps, and a view for each hook."""
        starts = [chain for chain in ends if chain in HOOKS]
        hooks = {HOOKS[chain]: place for place, chain in enumerate(starts)}
        views = [self._view(ends[chain].view) for chain in starts]
        return {"counted": one.counted, "hooks": hooks, "views": views, **self._end(one, ends)}

    def _end(self, one: _Sent, ends: Mapping[str, TraceMessage]) -> dict[str, Any]:
        """Whether the packet came to the end of the last hook, and where routing sent it."""
        if LOCAL_END in ends:
            return {"accepted": True, "routed": "local"}
        if OUT_END in ends:
            view = ends[OUT_END].view
            return {"accepted": True, "routed": self._network.name(view.oif), "last": self._view(view)}
        seen = not ends.keys().isdisjoint((START, OUTPUT))
        return {"accepted": False, "routed": self._routed(one, ends), "seen": seen}

    def _routed(self, one: _Sent, ends: Mapping[str, TraceMessage]) -> str:
        """Where routing sent a packet that did not come to the end: the hooks of its last messages say it."""
        for message in reversed(one.messages):
            if message.view.oif:
                return self._network.name(message.view.oif)
            if message.chain in ("INPUT", INPUT_START):
                return "local"
        if BEFORE_ROUTING in ends:
            return self._why_not_routed(one.packet, ends[BEFORE_ROUTING].view)
        return one.unsent

    def _why_not_routed(self, packet: Packet, view: View) -> str:
        reason = why_not_routed(packet, view)
        if reason == NO_ROUTE and not self._network.forwards(self._network.name(view.iif), packet.source.version):
            return "forwarding is off"
        return reason

    def _view(self, view: View) -> list[Any]:
        """A view as JSON values: addresses and ports, names of interfaces, mark."""
        family = socket.AF_INET
        if len(view.source) == 16:
            family = socket.AF_INET6
        addresses = [socket.inet_ntop(family, address) for address in (view.source, view.destination)]
        names = [self._network.name(index) for index in (view.iif, view.oif)]
        return [*addresses, view.source_port, view.destination_port, *names, view.mark]


def _finished(one: _Sent) -> bool:
    """Whether the last message shows the end of the packet."""
    if one.undecided or one.unsent:
        return True
    if not one.messages:
        return False
    last = one.messages[-1]
    return last.chain in (LOCAL_END, OUT_END) or last.outcome == "drop"


def _in_order(outer: list[TraceMessage], inner: list[TraceMessage]) -> list[TraceMessage]:
    """The messages of the first chain, those of iptables, then those of the last chains."""
    first: list[TraceMessage] = []
    last: list[TraceMessage] = []
    for message in outer:
        if message.chain in (START, OUTPUT):
            first.append(message)
        else:
            last.append(message)
    return first + inner + last


def _stay_on_this_processor() -> bool:
    """Keep the process on one processor, so that frames are processed in the order of sending; whether that worked."""
    current = ctypes.CDLL(None).sched_getcpu()
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {current})
        return True
    return False
