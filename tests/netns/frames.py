"""Frames made by hand, a network namespace of one's own, and devices to send the frames into.

For tests that want the real kernel to print a line about an exact packet. Everything happens in a namespace that
dies with its last user; `own_network_namespace` refuses to go on when it is still in the one it came from.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

HOST_MAC: Final = bytes.fromhex("02005e100001")
PEER_MAC: Final = bytes.fromhex("02005e100002")
HOST: Final = "10.9.0.1"
PEER: Final = "10.9.0.2"
HOST6: Final = "2001:db8:9::1"
PEER6: Final = "2001:db8:9::2"

ETH_IPV4: Final = 0x0800
ETH_ARP: Final = 0x0806
ETH_IPV6: Final = 0x86DD

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))

_CLONE_NEWNET: Final = 0x40000000
_PRESENT: Final = Path("/proc/thread-self/ns/net")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(payload: bytes, ethertype: int, *, dst: bytes = HOST_MAC, vlan: int | None = None) -> bytes:
    """An Ethernet frame from the peer, by default to the host, with an 802.1Q tag if a tag word is given."""
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return dst + PEER_MAC + tag + struct.pack("!H", ethertype) + payload


def ipv4(
    payload: bytes,
    proto: int,
    *,
    src: str = PEER,
    dst: str = HOST,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 4711,
    flags: int = 0,
    offset: int = 0,
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet; `flags` are the three bits CE, DF, MF, `offset` counts eight bytes."""
    words = 5 + len(options) // 4
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | words,
        tos,
        4 * words + len(payload),
        ident,
        flags << 13 | offset,
        ttl,
        proto,
        0,
        ipaddress.IPv4Address(src).packed,
        ipaddress.IPv4Address(dst).packed,
    )
    header += options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def ipv6(
    payload: bytes,
    next_header: int,
    *,
    src: str = PEER6,
    dst: str = HOST6,
    hop_limit: int = 64,
    traffic_class: int = 0,
    flow_label: int = 0,
) -> bytes:
    """An IPv6 packet; extension headers are part of the payload."""
    return (
        struct.pack("!IHBB", 6 << 28 | traffic_class << 20 | flow_label, len(payload), next_header, hop_limit)
        + ipaddress.IPv6Address(src).packed
        + ipaddress.IPv6Address(dst).packed
        + payload
    )


def tcp(
    flags: int = SYN,
    *,
    spt: int = 51234,
    dpt: int = 23,
    seq: int = 1000,
    ack: int = 0,
    window: int = 64240,
    urgent: int = 0,
    options: bytes = b"",
    reserved: int = 0,
    words: int | None = None,
) -> bytes:
    """A TCP header, its checksum left at zero; `words` overrides the header length that it claims."""
    length = 5 + len(options) // 4 if words is None else words
    return (
        struct.pack("!HHIIHHHH", spt, dpt, seq, ack, length << 12 | reserved << 9 | flags, window, 0, urgent) + options
    )


def udp(payload: bytes = b"", *, spt: int = 53124, dpt: int = 53, length: int | None = None) -> bytes:
    """A UDP or UDP-Lite header and what it carries, its checksum left at zero."""
    return struct.pack("!HHHH", spt, dpt, 8 + len(payload) if length is None else length, 0) + payload


def icmp(kind: int, code: int = 0, rest: bytes = b"\0\0\0\0", payload: bytes = b"") -> bytes:
    """An ICMP message with a good checksum; of ICMPv6 the checksum is no good, and no rule looks at it."""
    message = struct.pack("!BBH", kind, code, 0) + rest + payload
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def arp(operation: int = 1, *, hardware: int = 1, protocol: int = ETH_IPV4, address_lengths: int = 0x0604) -> bytes:
    """An ARP packet: the peer asks for the host."""
    return (
        struct.pack("!HHHH", hardware, protocol, address_lengths, operation)
        + PEER_MAC
        + ipaddress.IPv4Address(PEER).packed
        + bytes(6)
        + ipaddress.IPv4Address(HOST).packed
    )


@contextlib.contextmanager
def own_network_namespace() -> Iterator[None]:
    """Put the calling thread, and the programs that it starts, into a new network namespace; then back."""
    with _PRESENT.open("rb") as before:
        _check(_LIBC.unshare(_CLONE_NEWNET), "unshare")
        if os.fstat(before.fileno()).st_ino == _PRESENT.stat().st_ino:
            raise RuntimeError("still in the network namespace it came from")
        try:
            yield
        finally:
            _check(_LIBC.setns(before.fileno(), _CLONE_NEWNET), "setns")


@contextlib.contextmanager
def host_with_device() -> Iterator[Device]:
    """The calling thread in a new network namespace, whose one device, eth0, has the address that frames are for."""
    with own_network_namespace():
        device = Device(b"eth0")
        try:
            address = HOST_MAC.hex(":")
            subprocess.run(["ip", "link", "set", "eth0", "address", address, "addrgenmode", "none", "up"], check=True)
            yield device
        finally:
            device.close()


def packet_frame(packet: bytes) -> bytes:
    """An Ethernet frame with an IP packet of either family."""
    return ethernet(packet, ETH_IPV6 if packet[0] >> 4 == 6 else ETH_IPV4)


def _check(result: int, call: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), call)


class LogFromEveryNamespace:
    """Keeps net.netfilter.nf_log_all_netns at 1 while in use, and puts it back.

    The file is there in the initial namespace only (netfilter_log_sysctl_init(), net/netfilter/nf_log.c): make this
    before entering another one. Others on the machine may set it back: call `set` right before each packet.
    """

    def __init__(self) -> None:
        self._fd = os.open("/proc/sys/net/netfilter/nf_log_all_netns", os.O_RDWR | os.O_CLOEXEC)
        self._before = os.pread(self._fd, 16, 0)

    def set(self) -> None:
        """Let LOG rules of every namespace speak."""
        os.pwrite(self._fd, b"1\n", 0)

    def __enter__(self) -> Self:
        self.set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.pwrite(self._fd, self._before, 0)
        os.close(self._fd)


class Device:
    """A TAP or TUN device in the present namespace; what is written to it, the kernel receives on it."""

    def __init__(self, name: bytes, *, tun: bool = False) -> None:
        self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        kind = (_IFF_TUN if tun else _IFF_TAP) | _IFF_NO_PI
        fcntl.ioctl(self._fd, _TUNSETIFF, struct.pack("16sH22x", name, kind))
        self.name = name

    def send(self, frame: bytes) -> None:
        """Hand a frame (or, to a TUN device, a packet) to the kernel."""
        os.write(self._fd, frame)

    def close(self) -> None:
        """Take the device away."""
        os.close(self._fd)
