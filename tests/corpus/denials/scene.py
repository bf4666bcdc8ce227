"""What a scene of the corpus is, what a program on the host may send in it, and the hostile names of its devices."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

DENIED: Final = "iptables denied: "
Action: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Scene:
    """One namespace: its devices, its rules (`{prefix}` is filled in), and what is sent into its first device."""

    name: str
    setup: tuple[str, ...]
    frames: dict[str, bytes] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    devices: tuple[bytes, ...] = (b"eth0",)
    tun: bool = False
    prefix: str = DENIED
    tagged: bool = True
    answered: bool = False
    """Whether the lines are about the kernel's answers; then what was sent is not what was logged."""


def send_udp(to: str, *, mark: int = 0, user: int = 0) -> None:
    """One datagram from a socket of a given owner."""
    os.setegid(user)
    os.seteuid(user)
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_DGRAM)
    os.seteuid(0)
    os.setegid(0)
    with sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", mark))
        sender.bind(("", 40000))
        sender.sendto(b"hello", (to, 9))


def connect_tcp(to: str) -> None:
    """One SYN that gets no answer."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(0)
        client.bind(("", 40001))
        client.connect_ex((to, 443))


HOSTILE_NAMES: Final = (
    b"SRC=6.6.6.6",
    b"OUT=",
    b"OUT=eth0",
    b"PHYSIN=eth0",
    b"IN=eth0",
    b"MAC=",
    b"MACSRC=",
    b"PROTO=TCP",
    b"DPT=22",
    b"[SRC=6.6.6.6",
    b"]",
    b'"',
    b"'$(id)`;|&",
    b"\\x41\\",
    b"\x01\x1b[31m",
    b"\x7f\xff\xfe",
    "fünf".encode(),
    b"=",
    b"{},()<>#!~^*@+",
    b"ABCDEFGHIJKLMNO",
    b"\xc3\xa9" * 7,
)
