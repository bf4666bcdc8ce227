"""Packets into a bed: frames into the other ends of its interfaces, and packets from local sockets.

A frame arrives as a packet from outside. A raw socket with a header of its own (raw(7), IP_HDRINCL) sends a packet from
this host, with the mark and the owner of the socket; the kernel routes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.bed_hooks import (
    BARRIER_MAC,
    PLAIN_MAC,
    PLAIN_PRIORITY,
    UNTRACKED_MAC,
    UNTRACKED_PRIORITY,
    add_passage,
    install_passage,
)
from fwguardd.kernel.bed_network import LOOPBACK_INDEX, mac_of
from fwguardd.packets.frames import datagrams
from fwguardd.packets.model import ConnectionState, Direction, Packet
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from ipaddress import IPv6Address

    from fwguardd.kernel.bed_network import BedNetwork

_ETHERTYPES: Final = {4: 0x0800, 6: 0x86DD}
_IP_FREEBIND, _IPV6_FREEBIND, _IPV6_HDRINCL = 15, 78, 36
"""linux/in.h, linux/in6.h; Python 3.11 does not define them."""
_LOCALHOST: Final = IPv4Address("127.0.0.1")
_BARRIER_PACKET: Final = datagrams(Packet(Family.IPV4, "udp", _LOCALHOST, _LOCALHOST), 0)[0]
_TAP_NAME: Final = "fwgtap"
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
"""linux/if_tun.h."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NOT_SENT: Final = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "no route",
    errno.EACCES: "no route",
    errno.EINVAL: "no route",
    errno.EADDRNOTAVAIL: "no route",
}
_DROPPED_BY_RULE: Final = {errno.EPERM, errno.ENOBUFS}
"""What a sender gets for a packet that a hook dropped; the hooks of the bed drop every packet in the end."""


class NotSentError(Exception):
    """The packet could not be sent; the message is a reason for `Undecided.because`."""


class Sender:
    """Sends packets in the network namespace that the process is in."""

    def __init__(self, network: BedNetwork, committed: Callable[[], None]) -> None:
        """``committed`` is called after each commit to nf_tables while packets are sent. Raises OSError."""
        self._network = network
        self._groups = _Groups()
        self._frames: PacketSocket | Tap
        try:
            self._frames = PacketSocket(network)
        except OSError:
            # The unit of the rehearsal worker allows no packet sockets.
            self._frames = Tap(network, committed)

    def send(self, packet: Packet, number: int) -> str:
        """Send a packet. The answer is "", or "no route" where the kernel finds no way for it.

        Raises NotSentError; OSError for anything else.
        """
        self._raise_for_ports((packet.in_interface, packet.out_interface))
        if packet.direction is Direction.OUTBOUND:
            return self._send_locally(packet, number)
        self._send_frames(packet, number)
        return ""

    def _raise_for_ports(self, names: Iterable[str | None]) -> None:
        """Raise NotSentError for an interface whose packets the kernel shows as those of another one, and for a VRF,
        whose packets meet the rules twice and have routes of their own."""
        for name in names:
            master = self._network.master(name or "")
            vrf = self._network.vrf_of(name or "")
            if vrf:
                raise NotSentError(f"{name} has the routes of the VRF {vrf}, which a bed does not have")
            if master:
                raise NotSentError(
                    f"{name} belongs to {master}, and rules see its packets as those of {master}: name {master}"
                )

    def send_barrier(self) -> None:
        """Send a frame that arrives behind all others, and that the first chain drops. Raises OSError."""
        source = BARRIER_MAC + end_of_mac(LOOPBACK_INDEX)
        self._frames.send(LOOPBACK_INDEX, bytes(6) + source + struct.pack("!H", 0x0800) + _BARRIER_PACKET, 0)

    def _send_frames(self, packet: Packet, number: int) -> None:
        index = self._network.index(packet.in_interface or "lo")
        if packet.destination.is_multicast:
            self._groups.join(index, packet.destination)
        source = PLAIN_MAC
        if packet.state is ConnectionState.UNTRACKED:
            source = UNTRACKED_MAC
        addresses = self._receiver(packet, index) + source + end_of_mac(index)
        for datagram in datagrams(packet, number):
            frame = addresses + struct.pack("!H", _ETHERTYPES[packet.source.version]) + datagram
            self._frames.send(index, frame, packet.mark)

    def _receiver(self, packet: Packet, index: int) -> bytes:
        """The address of the frame: that of the interface, or of a group for a multicast or broadcast packet."""
        if self._network.is_broadcast(packet.destination):
            return b"\xff" * 6
        if packet.destination.is_multicast:
            return _group_mac(packet.destination)
        if index == LOOPBACK_INDEX:
            return bytes(6)
        return mac_of(index)

    def _send_locally(self, packet: Packet, number: int) -> str:
        with _owned_socket(packet) as sender:
            for datagram in datagrams(packet, number):
                try:
                    sender.sendto(datagram, (str(packet.destination), 0))
                except OSError as error:
                    if error.errno in _NOT_SENT:
                        return _NOT_SENT[error.errno]
                    if error.errno not in _DROPPED_BY_RULE:
                        raise
        return ""


def _group_mac(group: IPv4Address | IPv6Address) -> bytes:
    """The address of frames to a multicast group (RFC 1112, RFC 2464)."""
    if group.version == 4:
        return b"\x01\x00\x5e" + bytes([group.packed[1] & 0x7F]) + group.packed[2:]
    return b"\x33\x33" + group.packed[12:]


class _Groups:
    """The multicast groups that the namespace is a member of: those that packets are sent to."""

    def __init__(self) -> None:
        self._members: dict[tuple[int, IPv4Address | IPv6Address], socket.socket] = {}

    def join(self, index: int, group: IPv4Address | IPv6Address) -> None:
        """Become a member of a group on an interface. Raises OSError."""
        if (index, group) in self._members:
            return
        if group.version == 4:
            member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            request = group.packed + bytes(4) + struct.pack("=i", index)
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            member = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group.packed + struct.pack("=i", index))
        self._members[index, group] = member


class PacketSocket:
    """A socket that sends frames out of interfaces (packet(7))."""

    def __init__(self, network: BedNetwork) -> None:
        """Raises OSError where there are no such sockets."""
        self._network = network
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._mark = 0

    def send(self, index: int, frame: bytes, mark: int) -> None:
        """Send a frame that arrives at the interface with this index. Raises OSError."""
        if mark != self._mark:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            self._mark = mark
        self._socket.sendto(frame, (self._network.name_of_end(index), 0))


class Tap:
    """A TAP device (tuntap.rst of the kernel), whose frames nf_tables sends out of the interface in their address."""

    def __init__(self, network: BedNetwork, committed: Callable[[], None]) -> None:
        """Raises OSError."""
        self._network, self._committed = network, committed
        self._device = _open_tun()
        fcntl.ioctl(self._device, _TUNSETIFF, struct.pack("16sH22x", _TAP_NAME.encode(), _IFF_TAP | _IFF_NO_PI))
        network.set_up(socket.if_nametoindex(_TAP_NAME))
        install_passage(_TAP_NAME)
        self._known: set[int] = set()

    def send(self, index: int, frame: bytes, mark: int) -> None:
        """Send a frame that arrives at the interface with this index. Raises NotSentError, OSError."""
        if mark:
            raise NotSentError("a packet from outside can have a mark only where packet sockets are allowed")
        if index not in self._known:
            add_passage(end_of_mac(index), self._network.end(index))
            self._committed()
            self._known.add(index)
        os.write(self._device, frame)


def _open_tun() -> int:
    """A descriptor of the device. Raises OSError."""
    try:
        return os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        message = f"packet sockets are not allowed here, and /dev/net/tun cannot be opened: {error.strerror}"
        raise OSError(error.errno, message) from error


def end_of_mac(index: int) -> bytes:
    """The end of the source address of frames for an interface."""
    return index.to_bytes(3, "big")


@contextlib.contextmanager
def _owned_socket(packet: Packet) -> Iterator[socket.socket]:
    """A raw socket of the packet's owner, with its mark and its source address. Raises NotSentError."""
    with _owner(packet):
        sender = _open(packet)
    with sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, packet.mark)
        priority = PLAIN_PRIORITY
        if packet.state is ConnectionState.UNTRACKED:
            priority = UNTRACKED_PRIORITY
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
        # The source may be an address that the host does not have; the header of the packet has it in any case.
        with contextlib.suppress(OSError):
            sender.bind((str(packet.source), 0))
        yield sender


def _open(packet: Packet) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    if packet.source.version == 4:
        sender = socket.socket(socket.AF_INET, kind, socket.IPPROTO_RAW)
        sender.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return sender
    sender = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_RAW)
    sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
    return sender


@contextlib.contextmanager
def _owner(packet: Packet) -> Iterator[None]:
    """Let sockets that are opened now belong to the owner of the packet (setfsuid(2)). Raises NotSentError."""
    uid, gid = packet.uid or 0, packet.gid or 0
    if (uid, gid) == (os.geteuid(), os.getegid()):
        yield
        return
    try:
        _become(uid, gid)
        yield
    finally:
        _LIBC.setfsgid(os.getegid())
        _LIBC.setfsuid(os.geteuid())


def _become(uid: int, gid: int) -> None:
    for name, call, wanted in (("gid", _LIBC.setfsgid, gid), ("uid", _LIBC.setfsuid, uid)):
        # Both return the id that was in effect before, also if they fail.
        call(wanted)
        if call(-1) != wanted:
            raise NotSentError(f"a packet of {name} {wanted} cannot be sent here; run the command as root")
