"""Rules of one form: plain rules that differ only in addresses, ports and comments.

A kernel takes all of them in one chain or none, and spells them alike. A value is of a kind that iptables prints as it
was written: an address, or a network without bits behind its prefix, as RFC 5952 writes it; a port as a decimal
number; and a comment of plain characters. A rule with another value has no form.

This module is pure.
"""

from __future__ import annotations

import dataclasses
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.plain_rules import is_plain
from fwguardd.ruleset.values import read_network
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    _Parts = tuple[str, ...]

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"(?!0){_OCTET}(?:\.{_OCTET}){{3}}(?=[ /]|$)"
_IPV6 = r"[0-9a-f]+:[0-9a-f:]+(?=[ /]|$)"
_PORT = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})(?= |$)"
# iptables-save puts a comment in quotes if it has any character but letters, digits, "_" and "-".
_QUOTED = r'"(?=[a-zA-Z0-9_-]*[ .:/,])[a-zA-Z0-9][a-zA-Z0-9_ .:/,-]{1,200}"'
_COMMENT = rf"(?:[a-zA-Z0-9][a-zA-Z0-9_-]{{0,200}}|{_QUOTED})(?= |$)"
_VALUE = pattern(
    r"(-[sd] |--[sd]port |--comment )"
    rf"((?<=-[sd] )(?:{_IPV4}|{_IPV6})|(?<=port )(?:{_PORT})|(?<=comment )(?:{_COMMENT}))"
)
"""An option and its value. It splits the text of a rule into what is in front, the option, the value, and so on."""

_ADDRESSES = frozenset({"-s ", "-d "})
_PREFIX = pattern(r"/([1-9][0-9]?|1[01][0-9]|12[0-8])(?: |$)")


def cut(text: str) -> tuple[list[str], list[str]]:
    """The text of a rule without its values, and the values: what is in front of the first option, this option, what is
    behind its value, and so on."""
    parts = _VALUE.split(text)
    values = parts[2::3]
    del parts[2::3]
    return parts, values


@dataclass(frozen=True, slots=True)
class _Address:
    """Which of the values of a form is an IPv6 address, or a network with a prefix of so many bits."""

    place: int
    bits: int | None

    def is_printed_as_written(self, value: str) -> bool:
        """Whether iptables prints this value in the same way."""
        if ":" in value and not _is_compressed(value):
            return False
        if self.bits is None:
            return True
        network = read_network(f"{value}/{self.bits}")
        return network is not None and not network.has_host_bits


def _is_compressed(value: str) -> bool:
    """Whether an IPv6 address is written as RFC 5952 says. None here begins with zeros: inet_ntop(3) prints some of
    those with an IPv4 address."""
    try:
        return str(IPv6Address(value)) == value
    except AddressValueError:
        return False


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CommonForm:
    """What rules have in common that differ only in values. ``addresses`` are the values to be looked at closely.
    ``example`` is the text of one of the rules; a comment in it is "x"."""

    addresses: tuple[_Address, ...]
    example: str

    def has(self, values: Sequence[str]) -> bool:
        """Whether iptables prints these values as they are written."""
        return all(address.is_printed_as_written(values[address.place]) for address in self.addresses)


class FormReader:
    """Reads the forms of rules. Rules of the same form have the same object."""

    def __init__(self) -> None:
        self._forms: dict[_Parts, CommonForm | None] = {}

    def read(self, text: str) -> tuple[CommonForm | None, list[str]]:
        """The form of a rule, None where it has none, and its values."""
        parts, values = cut(text)
        key = tuple(parts)
        if ":" in text:
            key = (*parts, *_places_of_ipv6(parts[1::2], values))
        if key not in self._forms:
            self._forms[key] = _form_of(text, parts, values)
        form = self._forms[key]
        if form is None or (form.addresses and not form.has(values)):
            return None, values
        return form, values


def _places_of_ipv6(options: Sequence[str], values: Sequence[str]) -> Iterator[str]:
    """Which of the values are IPv6 addresses: rules of one form have those at the same places."""
    for place, (option, value) in enumerate(zip(options, values, strict=True)):
        if option in _ADDRESSES and ":" in value:
            yield str(place)


def _form_of(text: str, parts: Sequence[str], values: Sequence[str]) -> CommonForm | None:
    """The form of a rule that consists of these parts and values; None where others like it may be spelled otherwise,
    or refused."""
    if not values or not is_plain(text) or _is_cut_inside_quotes(parts):
        return None
    addresses: list[_Address] = []
    for place, value in enumerate(values):
        option, behind = parts[2 * place + 1 : 2 * place + 3]
        if option not in _ADDRESSES:
            continue
        bits: int | None = None
        if behind.startswith("/"):
            prefix = _PREFIX.match(behind)
            if prefix is None:
                return None
            bits = int(prefix[1])
        if bits is not None or ":" in value:
            addresses.append(_Address(place, bits))
    return CommonForm(tuple(addresses), _without_comments(parts, values))


def _without_comments(parts: Sequence[str], values: Sequence[str]) -> str:
    """The text of a rule with "x" for each comment."""
    text = parts[0]
    for option, value, behind in zip(parts[1::2], values, parts[2::2], strict=True):
        if option == "--comment ":
            value = "x"  # noqa: PLW2901
        text += f"{option}{value}{behind}"
    return text


def _is_cut_inside_quotes(parts: Sequence[str]) -> bool:
    """Whether what looks like an option with a value is part of a comment or of a prefix."""
    quotes = 0
    for part in parts[:-1]:
        quotes += part.count('"')
        if quotes % 2:
            return True
    return False
