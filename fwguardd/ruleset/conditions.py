"""The conditions that a rule's text sets for a packet, as far as they are known here.

Two questions are answered with them: whether the packets of one rule are a part of those of another one (`implies`),
and, in `fwguardd.ruleset.sample_packets`, whether a packet of some kind meets them.

This module is pure.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fwguardd.ruleset.values import read_network, read_number, read_ports
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.rule_view import Option, RuleView
    from fwguardd.ruleset.values import Network, PortRange

_NEUTRAL_MODULES = frozenset(
    {"comment", "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "conntrack", "state", "multiport"}
)
"""Match extensions that demand nothing by themselves, only by their options."""

_NEUTRAL_OPTIONS = frozenset(
    {"--comment", "-c", "-j", "-g", "", "--name", "--rsource", "--rdest", "--mask", "--set", "--return-nomatch"}
)
_TARGET_OPTIONS = (
    *("--reject-with", "--to-", "--random", "--persistent", "--queue-", "--on-port", "--on-ip", "--tproxy-mark"),
    *("--log-", "--nflog-", "--set-", "--tarpit", "--honeypot", "--reset", "--notrack"),
)
_OTHER_KEYS = {"--dports": "--dport", "--sports": "--sport", "--state": "--ctstate"}
_PROTOCOLS = {
    **dict.fromkeys(("58", "icmpv6", "icmp6"), "ipv6-icmp"),
    "0": "all",
    "1": "icmp",
    "2": "igmp",
    "6": "tcp",
    "17": "udp",
    "47": "gre",
    "50": "esp",
    "51": "ah",
    "132": "sctp",
}
_STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT")
SYN_ONLY = ("FIN,SYN,RST,ACK", "SYN")
"""The mask and the flags that --syn stands for (iptables-extensions(8)); iptables-save prints them."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One option that a packet must meet, or must not meet. ``name`` is the option as iptables-save prints it; lists
    of ports have the name of the single port, and --state that of --ctstate."""

    name: str
    values: tuple[str, ...] = ()
    negated: bool = False

    @property
    def value(self) -> str:
        """The first value; empty for an option without values."""
        if not self.values:
            return ""
        return self.values[0]

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks of -s or -d; none of a host name."""
        return networks_of(self.value)


def read_conditions(view: RuleView) -> tuple[Condition, ...]:
    """All conditions of a rule; none of a rule that matches every packet."""
    return tuple(_conditions(view))


def _conditions(view: RuleView) -> Iterator[Condition]:
    for place, option in enumerate(view.options, 1):
        if option.name == "-m":
            has_options = place < len(view.options) and view.options[place].name.startswith("--")
            yield from _of_module(view, option.value, has_options=has_options)
        elif option.name not in _NEUTRAL_OPTIONS and not option.name.startswith(_TARGET_OPTIONS):
            yield from _of_option(option)


def _of_module(view: RuleView, module: str, *, has_options: bool) -> Iterator[Condition]:
    """The condition that a match extension is by itself. The options of the match ``recent`` do not count."""
    if module == "recent":
        if not view.has("--set"):
            yield Condition("-m", (module,))
    elif not has_options and module not in _NEUTRAL_MODULES:
        yield Condition("-m", (module,))


def _of_option(option: Option) -> Iterator[Condition]:
    if option.name == "-p":
        protocol = protocol_name(option.value)
        if protocol != "all":
            yield Condition("-p", (protocol,), option.negated)
    elif option.name == "--syn":
        yield Condition("--tcp-flags", SYN_ONLY, option.negated)
    elif _matches_everything(option):
        return
    elif option.name == "--tcp-flags":
        flags = " ".join(option.values).replace("ALL", "FIN,SYN,RST,PSH,ACK,URG")
        yield Condition(option.name, tuple(flags.split()), option.negated)
    else:
        yield Condition(_OTHER_KEYS.get(option.name, option.name), option.values, option.negated)


def _matches_everything(option: Option) -> bool:
    """Whether an option is one for any address, or any interface."""
    if option.negated:
        return False
    if option.name in ("-i", "-o"):
        return option.value == "+"
    return option.name in ("-s", "-d") and any(network.is_everything for network in networks_of(option.value))


def protocol_name(value: str) -> str:
    """The name of a protocol that is given by a name or a number, as iptables-save prints it."""
    number = read_number(value)
    if number is not None:
        return _PROTOCOLS.get(str(number), str(number))
    return _PROTOCOLS.get(value.lower(), value.lower())


@lru_cache(maxsize=1024)
def networks_of(value: str) -> tuple[Network, ...]:
    """The networks of a list with commas. Host names are left out."""
    networks: list[Network] = []
    for part in value.split(","):
        network = read_network(part)
        if network is not None:
            networks.append(network)
    return tuple(networks)


@lru_cache(maxsize=256)
def states_of(value: str) -> frozenset[str]:
    """The connection states of a list. iptables takes them in any case, and cut short."""
    states: set[str] = set()
    for part in value.upper().split(","):
        for state in _STATES:
            if part and state.startswith(part):
                states.add(state)
    return frozenset(states)


def implies(narrow: Condition, wide: Condition) -> bool:
    """Whether every packet that meets the first condition meets the second one. False where that is not known."""
    if narrow == wide:
        return True
    if narrow.negated or narrow.name != wide.name:
        return False
    if wide.negated:
        return _excludes(narrow, wide)
    within = _WITHIN.get(wide.name)
    return within is not None and within(narrow.value, wide.value)


def _networks_within(narrow: str, wide: str) -> bool:
    # A host name is not read, and may be anything.
    return _all_covered(networks_of(narrow), networks_of(wide), 1 + narrow.count(","))


def _ports_within(narrow: str, wide: str) -> bool:
    # Nor is the name of a service that is not known here.
    return _all_covered(read_ports(narrow), read_ports(wide), 1 + narrow.count(","))


def _all_covered(inner: Sequence[Network | PortRange], outer: Sequence[Any], count: int) -> bool:
    """Whether so many values were read, and each of them is covered by one of the others."""
    if len(inner) != count:
        return False
    return all(any(one.covers(value) for one in outer) for value in inner)


def _states_within(narrow: str, wide: str) -> bool:
    return states_of(narrow) <= states_of(wide)


def _interfaces_within(narrow: str, wide: str) -> bool:
    return wide.endswith("+") and narrow.startswith(wide[:-1])


_WITHIN: Mapping[str, Callable[[str, str], bool]] = {
    **dict.fromkeys(("-s", "-d"), _networks_within),
    **dict.fromkeys(("--dport", "--sport"), _ports_within),
    **dict.fromkeys(("-i", "-o"), _interfaces_within),
    "--ctstate": _states_within,
}
"""For each option whose values can be parts of one another: whether all that one value means is meant by the other."""


def _excludes(narrow: Condition, wide: Condition) -> bool:
    """Whether one value of an option rules out the other: -i eth0 implies ! -i lo."""
    if wide.name not in ("-i", "-o", "-p"):
        return False
    return narrow.value != wide.value and not narrow.value.endswith("+") and not wide.value.endswith("+")


TERMINAL_TARGETS: Mapping[str, str] = {
    "ACCEPT": "ACCEPT",
    **dict.fromkeys(("DROP", "REJECT", "TARPIT", "DELUDE", "CHAOS"), "DROP"),
    **dict.fromkeys(("QUEUE", "NFQUEUE", "SYNPROXY"), "QUEUE"),
    **dict.fromkeys(("DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"), "ACCEPT"),
}
"""Targets after which no other rule of the table sees the packet, each with what becomes of the packet in the table."""
