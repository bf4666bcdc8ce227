"""Problems of a host outside of the rules: forwarding that rules need, the state directory, the clock.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.ruleset.model import Family, Finding, Rule, Severity
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.wording import local_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fwguardd.ruleset.model import Origin, Ruleset

SYSCTLS: Final = {Family.IPV4: "net.ipv4.ip_forward", Family.IPV6: "net.ipv6.conf.all.forwarding"}
"""The switch for forwarding of each family (Documentation/networking/ip-sysctl.rst)."""

LEAST_FREE: Final = 32 << 20
"""Bytes that the state directory needs: some revisions of the largest size."""

_TRANSLATING: Final = frozenset({"MASQUERADE", "DNAT", "NETMAP"})
_NEW_STATES: Final = frozenset({"NEW", "DNAT", "SNAT"})


def check_forwarding(rulesets: Mapping[Family, Ruleset], forwards: Mapping[Family, bool]) -> Iterator[Finding]:
    """Rules that need forwarding, on a host whose kernel does not forward that family: the first one of each."""
    for family, ruleset in rulesets.items():
        if forwards.get(family, True):
            continue
        rule = _first_that_needs_forwarding(ruleset)
        if rule is not None:
            sysctl = SYSCTLS[family]
            message = f"the rule is for packets that this host forwards, but {sysctl} is 0: the kernel forwards none"
            hint = f"sysctl -w {sysctl}=1, and write {sysctl} = 1 to a file in /etc/sysctl.d"
            yield Finding("no-forwarding", message, rule.origin, Severity.WARNING, hint=hint, family=family)


def _first_that_needs_forwarding(ruleset: Ruleset) -> Rule | None:
    for table, chain in ruleset.chains():
        for rule in chain.rules:
            view = RuleView.of(rule.text)
            if table.name == "nat" and _translates_others(view):
                return rule
            if (table.name, chain.name) == ("filter", "FORWARD") and _accepts_new(view):
                return rule
    return None


def _translates_others(view: RuleView) -> bool:
    """Whether it is NAT of packets that are not this host's own."""
    if view.target not in _TRANSLATING:
        return False
    return not (view.value("--to-destination") or "").startswith("127.")


def _accepts_new(view: RuleView) -> bool:
    """Whether it accepts the first packet of a connection."""
    if view.target != "ACCEPT":
        return False
    states = view.value("--ctstate") or view.value("--state")
    return states is None or not _NEW_STATES.isdisjoint(states.split(","))


def check_disk(free: int | None, path: str) -> Iterator[Finding]:
    """A disk on which there is no room for another revision; None is a directory that does not exist."""
    if free is not None and free < LEAST_FREE:
        message = f"{path} has {free >> 20} MiB left: rules are applied, but their revisions cannot be kept"
        yield Finding("state-disk-full", message, hint="make room on that file system")


def check_clock(now: float, newest: float) -> Iterator[Finding]:
    """A clock that shows a time before the newest revision, in seconds since 1970."""
    if now < newest:
        message = f"the clock shows {local_time(now)}, and the newest revision was applied at {local_time(newest)}"
        hint = "set the clock, for example with timedatectl; rules with -m time or an end depend on it"
        yield Finding("clock-behind", message, hint=hint)


def check_sets(named: Mapping[str, Origin], made: Collection[str]) -> Iterator[Finding]:
    """A warning for each ipset that rules name and no set file makes: at boot it is not there."""
    for name, origin in named.items():
        if name not in made:
            message = f'no set file makes the ipset "{name}", so that at boot another program has to, before fwguardd'
            hint = f"write its entries into {name}.set beside the rule files"
            yield Finding("set-without-file", message, origin, Severity.WARNING, hint)
