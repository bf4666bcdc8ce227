"""Matches that iptables accepts and that hold for no packet: ranges that end before they begin, and TCP flags that are
to be set but not looked at.

This module is pure.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.ruleset.rule_view import Option

_NAT = frozenset({"--to-source", "--to-destination"})
_ALL_FLAGS = frozenset({"SYN", "ACK", "FIN", "RST", "URG", "PSH"})


def why_never(option: Option) -> tuple[str, str] | None:
    """What is wrong with an option, and what to write; None if packets can match it."""
    check = _CHECKS.get(option.name)
    if check is None:
        return None
    return check(option)


def _effect(option: Option) -> str:
    if option.negated:
        return "every packet matches"
    return "no packet matches"


def _reversed_range(option: Option, separator: str, number: Callable[[str], int]) -> tuple[str, str] | None:
    first, found, last = option.value.partition(separator)
    try:
        is_reversed = bool(found) and number(first) > number(last)
    except ValueError:
        return None
    if not is_reversed:
        return None
    effect = _effect(option)
    if option.name in _NAT:
        effect = "addresses outside of it are chosen"
    message = f'the range "{option.value}" of {option.name} ends before it begins: {effect}'
    return message, f"write {last}{separator}{first}"


def _address_range(option: Option) -> tuple[str, str] | None:
    return _reversed_range(option, "-", _address)


def _address(text: str) -> int:
    """Raises ValueError, also for an address with a port."""
    return int(ip_address(text))


def _number_range(option: Option) -> tuple[str, str] | None:
    return _reversed_range(option, ":", _number)


def _number(text: str) -> int:
    """Raises ValueError."""
    return int(text, 0)


def _flags(option: Option) -> tuple[str, str] | None:
    """--tcp-flags MASK SET: a flag that is to be set has to be in the mask."""
    if len(option.values) != 2:
        return None
    mask, wanted = (_flag_names(value) for value in option.values)
    missing = sorted(wanted - mask)
    if not missing or not wanted <= _ALL_FLAGS:
        return None
    both = ",".join([option.values[0], *missing]).removeprefix("NONE,")
    message = f"--tcp-flags looks at {option.values[0]}, so {', '.join(missing)} is never set: {_effect(option)}"
    return message, f"write --tcp-flags {both} {option.values[1]}"


def _flag_names(value: str) -> frozenset[str]:
    names = frozenset(value.upper().split(","))
    if names == {"ALL"}:
        return _ALL_FLAGS
    return names - {"NONE"}


_CHECKS: Mapping[str, Callable[[Option], tuple[str, str] | None]] = {
    **dict.fromkeys(("--src-range", "--dst-range", *_NAT), _address_range),
    **dict.fromkeys(("--length", "--ahspi", "--espspi"), _number_range),
    "--tcp-flags": _flags,
}
