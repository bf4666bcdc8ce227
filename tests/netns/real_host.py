"""A host for comparisons with a bed: a namespace with real interfaces to a peer, where rules are loaded for real.

What becomes of a packet is seen from outside: it is delivered to a raw socket of the host, or arrives at the peer, or
the peer gets an error for it. Which rules it met is seen in the host's own counters.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from fwguardd.kernel.bed_worker import _stay_on_this_processor
from fwguardd.kernel.conntrack_entries import Connections, entries_for
from fwguardd.packets.frames import datagrams
from fwguardd.packets.model import Direction, Packet, Verdict
from fwguardd.ruleset.save_format import read_saved
from tests import processes
from tests.netns.namespaces import CLONE_NEWNET
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Family, Ruleset

HOST_MAC: Final = {"eth0": b"\x02\0\0\0\1\1", "eth1": b"\x02\0\0\0\1\2"}
PEER_MAC: Final = b"\x02\0\0\0\2\1"
TEST_PRIORITY: Final = 0x66770009
BARRIER: Final = 0x88B5
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
SETUP: Final = """
ip link set lo up
ip link add eth0 address 02:00:00:00:01:01 type veth peer name peer0 netns {peer}
ip link add eth1 address 02:00:00:00:01:02 type veth peer name peer1 netns {peer}
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0
sysctl -qw net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=1000000
ip address add 192.0.2.1/24 dev eth0
ip address add 10.1.0.1/24 dev eth1
ip address add 2001:db8:1::1/64 dev eth0 nodad
ip address add 2001:db8:2::1/64 dev eth1 nodad
ip link set eth0 up
ip link set eth1 up
ip neighbour add 192.0.2.254 dev eth0 lladdr 02:00:00:00:02:01 nud permanent
ip neighbour add 10.1.0.254 dev eth1 lladdr 02:00:00:00:02:01 nud permanent
ip neighbour add 2001:db8:1::fe dev eth0 lladdr 02:00:00:00:02:01 nud permanent
ip neighbour add 2001:db8:2::fe dev eth1 lladdr 02:00:00:00:02:01 nud permanent
ip route add default via 192.0.2.254
ip route add 10.0.0.0/8 via 10.1.0.254
ip -6 route add default via 2001:db8:1::fe
ip -6 route add 2001:db8:102::/47 via 2001:db8:2::fe
"""


class RealHost:
    """A host with eth0 to the world and eth1 to a network behind it; the calling thread is in its namespace."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        with processes.ended_on_error(self._holder):
            self._set_up()

    def _set_up(self) -> None:
        own = os.readlink("/proc/thread-self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != own, "the peer's namespace")
        for command in SETUP.format(peer=self._holder.pid).strip().splitlines():
            subprocess.run(command.split(), check=True)
        with self._at_the_peer():
            for name in ("peer0", "peer1"):
                Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
                subprocess.run(["ip", "link", "set", name, "up"], check=True)
            self._peers = {f"eth{end}": _capture(f"peer{end}") for end in (0, 1)}
        self._own = {name: _capture(name, BARRIER) for name in ("eth0", "eth1")}
        self._raw = [_raw_socket(family, number) for family in (4, 6) for number in (6, 17, 1, 58, 132, 47)]
        self._connections = Connections()
        self._arrived: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (*self._peers.values(), *self._own.values(), *self._raw):
            each.close()
        self._connections.close()
        processes.end(self._holder)

    @contextmanager
    def _at_the_peer(self) -> Iterator[None]:
        with (
            Path("/proc/thread-self/ns/net").open("rb") as here,
            Path(f"/proc/{self._holder.pid}/ns/net").open("rb") as there,
        ):
            assert _LIBC.setns(there.fileno(), CLONE_NEWNET) == 0
            try:
                yield
            finally:
                assert _LIBC.setns(here.fileno(), CLONE_NEWNET) == 0

    def send_nothing_else(self) -> None:
        """Let nothing leave but what the tests send: no errors for its own packets, no reports of multicast groups."""
        rule = f"meta priority != 6677:{TEST_PRIORITY & 0xFFFF:x} drop"
        chain = f"chain output {{\ntype filter hook output priority -500\n{rule}\n}}"
        subprocess.run(["nft", "-f", "-"], input=f"table inet tests {{\n{chain}\n}}\n", text=True, check=True)

    def load(self, family: Family, text: str) -> Ruleset:
        """Load rules for real; the ruleset as iptables-save prints it."""
        program = {4: "iptables", 6: "ip6tables"}[family.number]
        argv = [f"{program}-{self.backend}-restore"]
        loaded = subprocess.run(argv, input=text, text=True, check=False, capture_output=True)
        assert loaded.returncode == 0, (loaded.stderr, text)
        return self.counted(family)

    def counted(self, family: Family) -> Ruleset:
        """What iptables-save prints, with the counters."""
        program = {4: "iptables", 6: "ip6tables"}[family.number]
        saved = subprocess.run([f"{program}-{self.backend}-save", "-c"], text=True, check=True, capture_output=True)
        return read_saved(family, saved.stdout).shown

    def send(self, packets: Sequence[Packet]) -> list[Verdict]:
        """Send packets, the one after the other; what became of each."""
        affinity = os.sched_getaffinity(0)
        _stay_on_this_processor()
        try:
            for number, packet in enumerate(packets, 1):
                self._connections.make(entries_for(packet, number))
                self._send(packet, number)
            self._wait()
            return self._verdicts(packets)
        finally:
            os.sched_setaffinity(0, affinity)
            self._connections.remove_all()

    def _send(self, packet: Packet, number: int) -> None:
        for datagram in datagrams(packet, number):
            if packet.direction is Direction.OUTBOUND:
                _send_locally(packet, datagram)
            else:
                assert packet.in_interface is not None
                ethertype = {4: 0x0800, 6: 0x86DD}[packet.source.version]
                head = HOST_MAC[packet.in_interface] + PEER_MAC + struct.pack("!H", ethertype)
                self._peers[packet.in_interface].send(head + datagram)

    def _wait(self) -> None:
        """Until the host, and then the peer, have had all packets."""
        for name, end in self._peers.items():
            end.send(HOST_MAC[name] + PEER_MAC + struct.pack("!H", BARRIER) + bytes(46))
        for end in self._own.values():
            assert select.select([end], [], [], LONGEST)[0]
            end.recv(100)
            end.send(PEER_MAC + HOST_MAC["eth0"] + struct.pack("!H", BARRIER) + bytes(46))
        self._arrived = []
        for end in self._peers.values():
            while True:
                assert select.select([end], [], [], LONGEST)[0]
                frame, address = end.recvfrom(4096)
                if address[2] == socket.PACKET_OUTGOING:
                    continue
                if frame[12:14] == struct.pack("!H", BARRIER):
                    break
                self._arrived.append(frame[14:])

    def _verdicts(self, packets: Sequence[Packet]) -> list[Verdict]:
        verdicts = dict.fromkeys(range(1, len(packets) + 1), Verdict.DROP)
        keys = {_key(packet): number for number, packet in enumerate(packets, 1)}
        outbound = packets[0].direction is Direction.OUTBOUND
        for datagram in self._arrived:
            number, rejected = _identified(datagram, keys)
            if outbound:
                # The errors for the host's own packets do not leave the host.
                number, rejected = _number(datagram), False
            if number in verdicts:
                verdicts[number] = Verdict.REJECT if rejected else Verdict.ACCEPT
        for number in self._delivered(keys):
            verdicts[number] = Verdict.ACCEPT
        return list(verdicts.values())

    def _delivered(self, keys: Mapping[tuple[object, ...], int]) -> Iterator[int]:
        for end in self._raw:
            while True:
                try:
                    data, address = end.recvfrom(4096)
                except BlockingIOError:
                    break
                if end.family == socket.AF_INET:
                    number = int.from_bytes(data[4:6], "big")
                    yield number
                else:
                    key = (address[0], *_transport_key(end.proto, data))
                    if key in keys:
                        yield keys[key]


def _key(packet: Packet) -> tuple[object, ...]:
    """What tells a packet of IPv6 from the others of a run where it is delivered without its header."""
    return (str(packet.source), packet.source_port)


def _transport_key(protocol: int, data: bytes) -> tuple[int | None]:
    if protocol in (6, 17, 132):
        return (int.from_bytes(data[:2], "big"),)
    return (None,)


def _identified(datagram: bytes, keys: Mapping[tuple[object, ...], int]) -> tuple[int, bool]:
    """The number of the packet that arrived, or that this error or reset is about; and whether it is one of these."""
    inner = datagram
    rejected = False
    if _is_echo_reply(datagram):
        return 0, False  # Its own number may be that of a packet, by chance.
    if datagram[0] >> 4 == 4 and datagram[9] == 1 and datagram[20] == 3:
        inner, rejected = _quoted(datagram, datagram[28:], 20)
    if datagram[0] >> 4 == 6 and datagram[6] == 58 and datagram[40] == 1:
        inner, rejected = _quoted(datagram, datagram[48:], 40)
    reset = _reset_key(datagram)
    if reset is not None:
        return keys.get(reset, 0), True
    return _number(inner), rejected


def _is_echo_reply(datagram: bytes) -> bool:
    if datagram[0] >> 4 == 4:
        return datagram[9] == 1 and datagram[20] == 0
    return datagram[6] == 58 and datagram[40] == 129


def _quoted(datagram: bytes, inner: bytes, header: int) -> tuple[bytes, bool]:
    """The packet that an error is about. Errors that the tests send are about a packet of traceroute(8)."""
    if int.from_bytes(inner[header + 2 : header + 4], "big") == 33434:
        return datagram, False
    return inner, True


def _number(datagram: bytes) -> int:
    if datagram[0] >> 4 == 4:
        return int.from_bytes(datagram[4:6], "big")
    return int.from_bytes(datagram[1:4], "big") & 0xFFFFF


def _reset_key(datagram: bytes) -> tuple[object, ...] | None:
    """The key of the packet that a reset of TCP answers; None for anything else."""
    if datagram[0] >> 4 == 4 and datagram[9] == 6 and datagram[33] & 4:
        return (socket.inet_ntop(socket.AF_INET, datagram[16:20]), int.from_bytes(datagram[22:24], "big"))
    if datagram[0] >> 4 == 6 and datagram[6] == 6 and datagram[53] & 4:
        return (socket.inet_ntop(socket.AF_INET6, datagram[24:40]), int.from_bytes(datagram[42:44], "big"))
    return None


def _capture(name: str, ethertype: int = 3) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
    end.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    end.bind((name, ethertype))
    return end


def _raw_socket(version: int, protocol: int) -> socket.socket:
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
    end = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    end.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    return end


def _send_locally(packet: Packet, datagram: bytes) -> None:
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[packet.source.version]
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, packet.mark)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, TEST_PRIORITY)
        if packet.source.version == 6:
            end.setsockopt(socket.IPPROTO_IPV6, 36, 1)
        # A rule that drops the packet is an error for its sender.
        with suppress(PermissionError):
            end.sendto(datagram, (str(packet.destination), 0))
