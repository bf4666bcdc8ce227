"""Addresses of host names with their TTL, from the name servers of resolv.conf(5).

getaddrinfo(3) does not say how long an answer holds. One question is asked at a time over UDP (RFC 1035); a name server
that answers with an error or not at all is followed by the next one.
"""

from __future__ import annotations

import secrets
import socket
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESOLV_CONF = Path("/etc/resolv.conf")
_TYPES = {1: 4, 28: 16}
"""The types A and AAAA, and the bytes of their addresses (RFC 1035, RFC 3596)."""
_PORT, _SECONDS, _LARGEST = 53, 3.0, 4096
_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_RECURSION, _RESPONSE, _CODE, _CUT = 0x0100, 0x8000, 0x000F, 0x0200


class LookupFailedError(Exception):
    """A name could not be looked up. The message says why."""


def name_servers(path: Path = RESOLV_CONF) -> list[str]:
    """The name servers of this host. Raises LookupFailedError."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise LookupFailedError(f"{path} cannot be read: {error.strerror}") from error
    servers = [words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"] and len(words) > 1]
    if not servers:
        raise LookupFailedError(f"{path} names no name server")
    return servers


def look_up(name: str, servers: Sequence[str], port: int = _PORT) -> tuple[list[str], int]:
    """The addresses of a name, and the seconds for which all of them hold. Raises LookupFailedError."""
    found: list[tuple[str, int]] = []
    for kind in _TYPES:
        found += _ask_each(name, kind, servers, port)
    if not found:
        raise LookupFailedError(f"{name} has no address")
    return [address for address, _ in found], min(ttl for _, ttl in found)


def _ask_each(name: str, kind: int, servers: Sequence[str], port: int) -> list[tuple[str, int]]:
    reason = ""
    for server in servers:
        try:
            return _ask(name, kind, server, port)
        except (OSError, LookupFailedError) as error:
            reason = f"{server}: {error}"
    raise LookupFailedError(f"{name} cannot be looked up: {reason}")


def _ask(name: str, kind: int, server: str, port: int) -> list[tuple[str, int]]:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    number = secrets.randbits(16)
    question = _encoded(name) + struct.pack(">HH", kind, 1)
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.settimeout(_SECONDS)
        asked.connect((server, port))
        asked.send(_HEADER.pack(number, _RECURSION, 1, 0, 0, 0) + question)
        answer = asked.recv(_LARGEST)
    try:
        return _read(answer, number, kind)
    except (struct.error, IndexError) as error:
        raise LookupFailedError("the answer is damaged") from error


def _encoded(name: str) -> bytes:
    """The name in the form of a question. Raises LookupFailedError."""
    encoded = b""
    for label in name.rstrip(".").split("."):
        try:
            text = label.encode("idna")
        except UnicodeError as error:
            raise LookupFailedError("it is not a host name") from error
        encoded += bytes([len(text)]) + text
    return encoded + b"\0"


def _read(answer: bytes, number: int, kind: int) -> list[tuple[str, int]]:
    """The addresses of an answer, each with its TTL. Raises LookupFailedError, struct.error, IndexError."""
    answered, flags, questions, records, _, _ = _HEADER.unpack_from(answer)
    if answered != number or not flags & _RESPONSE:
        raise LookupFailedError("the answer is to another question")
    if flags & _CODE or flags & _CUT:
        raise LookupFailedError(f"the name server answered with the code {flags & _CODE}, or only in part")
    position = _HEADER.size
    for _ in range(questions):
        position = _after_name(answer, position) + 4
    return list(_addresses(answer, position, records, kind))


def _addresses(answer: bytes, position: int, records: int, kind: int) -> Iterator[tuple[str, int]]:
    for _ in range(records):
        position = _after_name(answer, position)
        found, _, ttl, length = _RECORD.unpack_from(answer, position)
        position += _RECORD.size
        if found == kind and length == _TYPES[kind]:
            yield str(ip_address(answer[position : position + length])), ttl
        position += length


def _after_name(answer: bytes, position: int) -> int:
    """The position behind a name, which may end with a reference to another one."""
    while answer[position]:
        if answer[position] >= 0xC0:
            return position + 2
        position += answer[position] + 1
    return position + 1
