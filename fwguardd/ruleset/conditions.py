"""What a rule's text demands of a packet, as far as it is known here: a target and a list of conditions.

Two questions are answered with them: whether the packets of one rule are a part of those of another one (`implies`),
and, in `fwguardd.ruleset.reachability`, whether a rule matches a packet of some kind.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.values import read_network, read_number, read_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Rule, Table
    from fwguardd.ruleset.rule_view import Option
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

# What nearly all rules of a list of addresses are. Reading them otherwise takes five times as long.
_DROP_OF_ONE_ADDRESS = re.compile(
    r"(-[sd]) ((?!127\.)(?:[0-9]+(?:\.[0-9]+){3}(?:/32)?|[0-9a-f:]+:[0-9a-f:]+(?:/128)?)) -j (DROP|REJECT)"
)


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


@dataclass(frozen=True, slots=True)
class ReadRule:
    """A rule with what it demands. ``target`` is the word after -j or -g, and empty where there is neither; a packet
    must meet all conditions. ``is_steady`` says that the rule matches the same packets at all times: no limit, no
    list and no clock. ``drops_one_address`` marks the rules of which lists of addresses consist."""

    rule: Rule
    target: str
    conditions: tuple[Condition, ...]
    is_goto: bool = False
    is_steady: bool = True
    drops_one_address: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The names of the conditions."""
        return frozenset(condition.name for condition in self.conditions)

    def meets(self, wanted: Condition) -> bool:
        """Whether every packet that the rule matches meets a condition."""
        return any(implies(condition, wanted) for condition in self.conditions)

    def condition(self, name: str) -> Condition | None:
        """The first condition of this name that is not negated; None where there is none."""
        for condition in self.conditions:
            if condition.name == name and not condition.negated:
                return condition
        return None


ReadChains = dict[str, tuple[ReadRule, ...]]
"""The rules of a table by chain."""


def read_chains(table: Table, known: dict[int, ReadRule]) -> ReadChains:
    """The rules of a table, read. ``known`` keeps the rules that were read by their identity: a rule for both families
    is one object in both."""
    chains: ReadChains = {}
    for chain in table.chains.values():
        rules: list[ReadRule] = []
        for rule in chain.rules:
            read = known.get(id(rule))
            if read is None:
                read = known[id(rule)] = read_rule(rule)
            rules.append(read)
        chains[chain.name] = tuple(rules)
    return chains


def without_lists(chains: ReadChains) -> ReadChains:
    """The chains without the rules that drop a single address: they decide about no packet from anywhere else."""
    kept: ReadChains = {}
    for name, rules in chains.items():
        kept[name] = tuple(rule for rule in rules if not rule.drops_one_address)
    return kept


def read_rule(rule: Rule) -> ReadRule:
    """A rule, read. Never raises."""
    match = _DROP_OF_ONE_ADDRESS.fullmatch(rule.text)
    if match is not None:
        option, address, target = match.groups()
        return ReadRule(rule, target, (Condition(option, (address,)),), drops_one_address=True)
    view = RuleView.of(rule.text)
    return ReadRule(rule, view.target or "", read_conditions(view), view.is_goto, _is_steady(view))


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


_CHANGING = frozenset(
    {"limit", "hashlimit", "recent", "statistic", "quota", "quota2", "nth", "random", "rateest", "connlimit", "time"}
    | {"condition", "fuzzy", "psd", "lscan", "pknock", "connbytes", "mark", "connmark", "dscp", "tos", "ttl", "hl"}
)
"""Match extensions that do not match the same packets at all times, or that match what other rules may change."""


def _is_steady(view: RuleView) -> bool:
    return _CHANGING.isdisjoint(option.value for option in view.options if option.name == "-m")


def shadows(earlier: ReadRule, later: ReadRule) -> bool:
    """Whether every packet of the later rule meets all conditions of the earlier one."""
    return all(later.meets(wanted) for wanted in earlier.conditions)


TERMINAL_TARGETS: Mapping[str, str] = {
    "ACCEPT": "ACCEPT",
    **dict.fromkeys(("DROP", "REJECT", "TARPIT", "DELUDE", "CHAOS"), "DROP"),
    **dict.fromkeys(("QUEUE", "NFQUEUE", "SYNPROXY"), "QUEUE"),
    **dict.fromkeys(("DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"), "ACCEPT"),
}
"""Targets after which no other rule of the table sees the packet, each with what becomes of the packet in the table."""
