"""Numbers, ports and networks in the values of options, read as iptables reads them.

iptables reads most numbers with strtoul(3) and base 0 (xtables_strtoul in libxtables/xtables.c, measured with 1.8.9):
``026`` is octal, ``0x16`` is hexadecimal and ``+22`` is 22. The parts of an IPv4 address are such numbers too.

This module is pure.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from fwguardd.patterns import pattern
from fwguardd.values import dataclass

MOST_PORTS = 15
"""Ports of one multiport match (XT_MULTI_PORTS, linux/netfilter/xt_multiport.h); a range counts as two."""

LAST_PORT = 65_535

SERVICES = {
    **dict.fromkeys(("http", "www"), 80),
    **dict.fromkeys(("imap", "imap2"), 143),
    "ftp-data": 20,
    "ftp": 21,
    "ssh": 22,
    "telnet": 23,
    "smtp": 25,
    "domain": 53,
    "tftp": 69,
    "pop3": 110,
    "sunrpc": 111,
    "ntp": 123,
    "snmp": 161,
    "https": 443,
    "submission": 587,
    "imaps": 993,
    "pop3s": 995,
}
"""Names of ports that people write; services(5) has the others."""

_NUMBER = pattern(r"\+?(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})")
_ALL_ONES = {4: 2**32 - 1, 6: 2**128 - 1}
_BITS = {4: 32, 6: 128}


class PortRange(NamedTuple):
    """Ports from the first to the last one."""

    first: int
    last: int

    def covers(self, other: PortRange) -> bool:
        """Whether all ports of the other range are in this one."""
        return self.first <= other.first and other.last <= self.last

    @property
    def is_everything(self) -> bool:
        """Whether every port is in it. No packet has port 0."""
        return self.first <= 1 and self.last >= LAST_PORT


def read_number(word: str) -> int | None:
    """The number that strtoul(3) with base 0 reads; None where it would not read the whole word."""
    if not _NUMBER.fullmatch(word):
        return None
    digits = word.removeprefix("+")
    if digits[:2] in ("0x", "0X"):
        return int(digits, 0)
    if digits[0] != "0":
        return int(digits)
    if not set(digits) <= set("01234567"):
        return None
    return int(digits, 8)


_NUMBER_SEPARATORS = pattern(r"([.:/])")


def has_odd_base(word: str) -> bool:
    """Whether a number, an IPv4 address or a range of ports has a number in it that is not read as it looks: octal,
    hexadecimal, or with a plus sign. Hexadecimal is usual in IPv6 addresses."""
    if word.count(":") > 1:
        return False
    for part in _NUMBER_SEPARATORS.split(word):
        number = read_number(part)
        if number and str(number) != part.lstrip("0"):
            return True
    return False


def how_number_is_read(word: str) -> str:
    """What iptables makes of such a number."""
    kind = "as octal"
    if "x" in word.lower():
        kind = "as hexadecimal"
    elif "+" in word:
        kind = "without the plus sign"
    meant = "".join(map(_in_decimal, _NUMBER_SEPARATORS.split(word)))
    return f"is read {kind}: it means {meant}"


def _in_decimal(part: str) -> str:
    number = read_number(part)
    if number is None:
        return part
    return str(number)


def read_port(word: str) -> int | None:
    """The port that a number or a well-known name stands for; None for another word."""
    number = read_number(word)
    if number is None:
        return SERVICES.get(word)
    return number


@lru_cache(maxsize=1024)
def read_ports(value: str) -> tuple[PortRange, ...]:
    """The ports of a list such as ``22,80,1024:65535``, as ranges. Words that are not ports are left out."""
    ranges: list[PortRange] = []
    for part in value.split(","):
        ports = _read_range(part)
        if ports is not None:
            ranges.append(ports)
    return tuple(ranges)


def _read_range(text: str) -> PortRange | None:
    """One port, or a range, of which the first or the last port may be left out."""
    first, colon, last = text.partition(":")
    if not colon:
        last = first
    start, end = read_port(first or "0"), read_port(last or str(LAST_PORT))
    if start is None or end is None:
        return None
    return PortRange(start, end)


def split_ports(value: str) -> tuple[str, ...]:
    """A list of ports cut into lists that one multiport match takes each."""
    lists: list[str] = []
    parts: list[str] = []
    size = 0
    for part in value.split(","):
        weight = 1 + part.count(":")
        if size + weight > MOST_PORTS:
            lists.append(",".join(parts))
            parts, size = [], 0
        parts.append(part)
        size += weight
    return (*lists, ",".join(parts))


def how_to_split(option: str, value: str) -> str:
    """The hint for a list of ports that is too long."""
    lists = " and ".join(f'"{option} {part}"' for part in split_ports(value))
    return f"write one rule for each of {lists}"


def ports_counted(value: str) -> int:
    """How many of the ports of a multiport match a list takes."""
    return 1 + value.count(",") + value.count(":")


@dataclass(frozen=True, slots=True)
class Network:
    """An address with a mask, both as numbers. ``version`` is 4 or 6."""

    version: int
    address: int
    mask: int

    @property
    def is_everything(self) -> bool:
        """Whether the mask is 0, so that every address matches."""
        return self.mask == 0

    @property
    def has_host_bits(self) -> bool:
        """Whether the address has bits outside of the mask, which iptables drops."""
        return self.address & ~self.mask != 0

    @property
    def has_holes(self) -> bool:
        """Whether the mask is not a number of leading bits."""
        inverted = self.mask ^ _ALL_ONES[self.version]
        return inverted & (inverted + 1) != 0

    @property
    def bits(self) -> int:
        """How many bits the mask has."""
        return self.mask.bit_count()

    @property
    def base(self) -> str:
        """The first address of the network."""
        address = self.address & self.mask
        if self.version == 6:
            return str(IPv6Address(address))
        return ".".join(str(octet) for octet in address.to_bytes(4, "big"))

    def covers(self, other: Network) -> bool:
        """Whether every address of the other network is in this one."""
        if self.version != other.version or self.mask & ~other.mask:
            return False
        return self.address & self.mask == other.address & self.mask

    def __str__(self) -> str:
        if self.has_holes:
            return f"{self.base}/{Network(self.version, self.mask, _ALL_ONES[self.version]).base}"
        return f"{self.base}/{self.bits}"


@lru_cache(maxsize=1024)
def read_network(text: str) -> Network | None:
    """The network that an address, with or without a mask, means; None for a name and for what iptables refuses."""
    address, slash, mask = text.partition("/")
    version = 4
    if ":" in address:
        version = 6
    number = _read_address(version, address)
    bits: int | None = _ALL_ONES[version]
    if slash:
        bits = _read_mask(version, mask)
    if number is None or bits is None:
        return None
    return Network(version, number, bits)


def _read_mask(version: int, text: str) -> int | None:
    """A mask that is given as an address or as a number of bits."""
    if text.count(".") == 3 or ":" in text:
        return _read_address(version, text)
    length = read_number(text)
    if length is None or length > _BITS[version]:
        return None
    return _ALL_ONES[version] ^ (_ALL_ONES[version] >> length)


def _read_address(version: int, text: str) -> int | None:
    if version == 4:
        return _read_ipv4(text)
    try:
        return int(IPv6Address(text))
    except AddressValueError:
        return None


def _read_ipv4(text: str) -> int | None:
    """Up to four numbers. What is missing is 0 (xtables_numeric_to_ipaddr in libxtables/xtables.c, measured)."""
    parts = text.split(".")
    if len(parts) > 4:
        return None
    address = 0
    for part in (*parts, "0", "0", "0")[:4]:
        number = read_number(part)
        if number is None or number > 255:
            return None
        address = address * 256 + number
    return address
