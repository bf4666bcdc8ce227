"""A policy test: which packets have to be accepted, dropped or rejected, as it is written.

`fwguardd.packets.tests_file` reads tests from files, `fwguardd.packets.policy_cases` makes packets of them.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.packets.model import ConnectionState, Verdict
from fwguardd.ruleset.model import FAMILIES, Family, Origin
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.packets.case_values import Address, IcmpType

BAD_TEST = "bad-test"
"""The code of findings about what a tests file says."""

FAMILY_NAMES: Mapping[Family, str] = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One test as it is written: the values of each key, none where the key is not there.

    ``family`` is what the test or its protocol limits it to. An interface ends in "+" where it stands for all that
    begin so (iptables(8), "-i").
    """

    expect: Verdict
    origin: Origin
    because: str = ""
    family: tuple[Family, ...] = FAMILIES
    proto: tuple[str, ...] = ()
    source: tuple[Address, ...] = ()
    destination: tuple[Address, ...] = ()
    sport: tuple[int, ...] = ()
    dport: tuple[int, ...] = ()
    in_interface: tuple[str, ...] = ()
    out_interface: tuple[str, ...] = ()
    icmp_type: tuple[IcmpType, ...] = ()
    state: tuple[ConnectionState, ...] = (ConnectionState.NEW,)
    uid: tuple[int, ...] = ()
    gid: tuple[int, ...] = ()
    mark: tuple[int, ...] = (0,)
    flags: tuple[frozenset[str], ...] = ()
    fragment: bool = False


def family_of(address: Address) -> Family:
    """The family of an address."""
    if address.version == 6:
        return Family.IPV6
    return Family.IPV4
