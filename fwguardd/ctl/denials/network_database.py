"""A database of networks in the form of MaxMind (MaxMind DB 2.0), as GeoLite2, DB-IP and IPinfo give them away.

A binary tree, with a bit of the address at each step, leads to the place of a record. Nothing is asked of the network.

This module is pure.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_MARKER: Final = b"\xab\xcd\xefMaxMind.com"
_SEPARATOR: Final = 16
"""Bytes between the tree and the records."""

_RECORD_SIZES: Final = (24, 28, 32)
_DEEPEST: Final = 32
_MOST_ELEMENTS: Final = 10_000
_POINTER, _TEXT, _DOUBLE, _BYTES, _MAP, _INT32, _ARRAY, _BOOLEAN, _FLOAT = 1, 2, 3, 4, 7, 8, 11, 14, 15
_POINTER_BASES: Final = (0, 2048, 526_336, 0)
_SIZE_BASES: Final = {29: 29, 30: 285, 31: 65_821}
_IPV4_IN_IPV6: Final = 96
"""Bits that are zero before an IPv4 address in the tree of a database for both."""


class DatabaseError(ValueError):
    """The bytes are not such a database, or are damaged."""


class Database:
    """The database in these bytes. Raises DatabaseError."""

    def __init__(self, data: bytes) -> None:
        place = data.rfind(_MARKER)
        if place < 0:
            raise DatabaseError("it has no metadata of MaxMind DB")
        self._data = data
        metadata = _decoded(data, place + len(_MARKER))
        try:
            self._nodes, self._bits = int(metadata["node_count"]), int(metadata["record_size"])
            self._version = int(metadata["ip_version"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatabaseError("its metadata has no size of the tree") from error
        if self._bits not in _RECORD_SIZES:
            raise DatabaseError(f"its records have {self._bits} bits")
        self._node_bytes = self._bits // 4
        self._records = self._nodes * self._node_bytes + _SEPARATOR

    def find(self, text: str) -> dict[str, Any]:
        """The record of the network of an address; empty where there is none. Raises DatabaseError."""
        try:
            address = ip_address(text)
        except ValueError:
            return {}
        length = self._bits_of(address)
        if not length:
            return {}
        record = self._record(int(address), length)
        if isinstance(record, dict):
            return record
        return {}

    def _bits_of(self, address: IPv4Address | IPv6Address) -> int:
        """How many steps lead to an address; 0 where the database has no address of this family."""
        if address.version == 4 and self._version == 6:
            return 32 + _IPV4_IN_IPV6
        if address.version == 6 and self._version == 4:
            return 0
        return address.max_prefixlen

    def _record(self, number: int, length: int) -> object:
        place = self._walk(number, length)
        if place is None:
            return None
        return _decoded(self._data, place, self._records)

    def _walk(self, number: int, length: int) -> int | None:
        """The place of the record that the bits of an address lead to."""
        node = 0
        for bit in range(length - 1, -1, -1):
            node = self._next(node, number >> bit & 1)
            if node >= self._nodes:
                break
        if node <= self._nodes:
            return None
        return self._records + node - self._nodes - _SEPARATOR

    def _next(self, node: int, side: int) -> int:
        """The left or right record of a node."""
        start = node * self._node_bytes
        data = self._data[start : start + self._node_bytes]
        if len(data) < self._node_bytes:
            raise DatabaseError("its tree is cut short")
        if self._bits == 28:
            # The middle byte has the highest four bits of both records.
            high = data[3] >> 4
            if side:
                high = data[3] & 0x0F
            return high << 24 | int.from_bytes(data[4 * side : 4 * side + 3], "big")
        half = self._node_bytes // 2
        return int.from_bytes(data[half * side : half * (side + 1)], "big")


def _decoded(data: bytes, place: int, base: int | None = None) -> Any:
    """The value at a place; pointers count from ``base``, which is the place itself where it is None. Raises
    DatabaseError."""
    decoder = _Decoder(data, place if base is None else base)
    try:
        return decoder.value(place, 0)[0]
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise DatabaseError("a record is damaged") from error


class _Decoder:
    """Decodes values, each with the place behind it."""

    def __init__(self, data: bytes, base: int) -> None:
        self._data, self._base = data, base
        self._left = _MOST_ELEMENTS

    def value(self, place: int, depth: int) -> tuple[Any, int]:
        """The value at a place. Raises DatabaseError."""
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            raise DatabaseError("a record is nested too deeply, or too long")
        kind, size, place = self._control(place)
        if kind == _POINTER:
            target, place = self._pointer(size, place)
            return self.value(target, depth + 1)[0], place
        return self._value_of_kind(kind, size, place, depth)

    def _value_of_kind(self, kind: int, size: int, place: int, depth: int) -> tuple[Any, int]:
        if kind == _MAP:
            return self._map(size, place, depth)
        if kind == _ARRAY:
            return self._array(size, place, depth)
        if kind == _BOOLEAN:
            return bool(size), place
        return _scalar(kind, self._bytes(place, size)), place + size

    def _control(self, place: int) -> tuple[int, int, int]:
        """Type, size and the place behind both. The size of a pointer is given as it stands."""
        control = self._data[place]
        kind, size, place = control >> 5, control & 0x1F, place + 1
        if kind == 0:
            kind, place = self._data[place] + 7, place + 1
        if kind == _POINTER or size not in _SIZE_BASES:
            return kind, size, place
        length = size - 28
        return kind, _SIZE_BASES[size] + int.from_bytes(self._bytes(place, length), "big"), place + length

    def _pointer(self, size: int, place: int) -> tuple[int, int]:
        """Where a pointer points to."""
        length = (size >> 3) + 1
        offset = int.from_bytes(self._bytes(place, length), "big")
        if length < 4:
            offset |= (size & 7) << 8 * length
        return self._base + offset + _POINTER_BASES[length - 1], place + length

    def _bytes(self, place: int, size: int) -> bytes:
        found = self._data[place : place + size]
        if len(found) < size:
            raise DatabaseError("a record is cut short")
        return found

    def _map(self, size: int, place: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        for _ in range(size):
            name, place = self.value(place, depth + 1)
            found[str(name)], place = self.value(place, depth + 1)
        return found, place

    def _array(self, size: int, place: int, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        for _ in range(size):
            element, place = self.value(place, depth + 1)
            found.append(element)
        return found, place


def _scalar(kind: int, data: bytes) -> object:
    if kind == _TEXT:
        return data.decode()
    if kind == _BYTES:
        return data
    if kind == _DOUBLE:
        return struct.unpack("!d", data)[0]
    if kind == _FLOAT:
        return struct.unpack("!f", data)[0]
    return int.from_bytes(data, "big", signed=kind == _INT32 and len(data) == 4)


_KEPT: Final = 65_536


class NetworkNames:
    """Names of the networks of addresses, by some databases: of the first that has one."""

    def __init__(self, databases: tuple[Database, ...]) -> None:
        self._databases = databases
        self._known: dict[tuple[str, str], str] = {}

    def name(self, address: str, key: str) -> str:
        """The country or the autonomous system of an address; empty if none is known. Raises DatabaseError."""
        found = self._known.get((address, key))
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[address, key] = self._find(address, key)
        return found

    def _find(self, address: str, key: str) -> str:
        try:
            for database in self._databases:
                name = _READERS[key](database.find(address))
                if name:
                    return name
        except DatabaseError as error:
            raise DatabaseError(f"a database of networks is damaged: {error}; name another one with --names") from error
        return ""


def _country(record: dict[str, Any]) -> str:
    for name in ("country", "registered_country"):
        country = record.get(name)
        if isinstance(country, dict):
            return str(country.get("iso_code", ""))
        if isinstance(country, str):
            return country
    return ""


def _system(record: dict[str, Any]) -> str:
    number = record.get("autonomous_system_number", record.get("asn", ""))
    name = record.get("autonomous_system_organization", record.get("name", ""))
    if not number:
        return ""
    return f"AS{str(number).removeprefix('AS')} {name}".strip()


_READERS: Final = {"country": _country, "as": _system}
NAME_KEYS: Final = tuple(_READERS)
"""The keys that a database knows."""
