"""Warnings about FTP that is accepted where its data connections are dropped.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.model import BUILTIN_CHAINS, Finding, Ruleset, Severity
from fwguardd.ruleset.reachability import ReadRuleset, usual_end
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.sample_packets import SamplePacket
from fwguardd.ruleset.values import PortRange, read_ports

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from fwguardd.ruleset.read_rules import ReadRule, RuleKind

_FTP = PortRange(21, 21)
_FTP_DATA = PortRange(20, 20)
_LAST_PRIVILEGED = 1_023


def lint_ftp(rulesets: Sequence[ReadRuleset], candidates: Iterable[Ruleset]) -> Iterator[Finding]:
    """Rules that accept FTP where data connections are dropped, because there is no conntrack helper for them."""
    helped = [candidate.family for candidate in candidates if _has_helper(candidate)]
    for ruleset in rulesets:
        if ruleset.family not in helped:
            yield from _lint_ftp_of(ruleset)


def _lint_ftp_of(ruleset: ReadRuleset) -> Iterator[Finding]:
    for name in BUILTIN_CHAINS["filter"]:
        yield from _lint_ftp_in(ruleset, name)


def _has_helper(ruleset: Ruleset) -> bool:
    for _, chain in ruleset.chains():
        for rule in chain.rules:
            if "--helper" in rule.text and RuleView.of(rule.text).value("--helper") == "ftp":
                return True
    return False


def _lint_ftp_in(ruleset: ReadRuleset, name: str) -> Iterator[Finding]:
    kinds = _kinds_that_lack_data(ruleset, name)
    if not kinds:
        return
    message = "FTP is accepted without its conntrack helper: logins work, transfers and listings hang"
    start = "PREROUTING"
    if name == "OUTPUT":
        start = "OUTPUT"
    hint = f'add "-t raw -A {start} -p tcp --dport 21 -j CT --helper ftp"'
    for rule in ruleset.accepting(name):
        if rule.kind in kinds:
            yield Finding("ftp-without-helper", message, rule.rule.origin, Severity.WARNING, hint)


def _kinds_that_lack_data(ruleset: ReadRuleset, name: str) -> Collection[RuleKind]:
    """The kinds of rules in a chain that accept FTP; none where its data connections are accepted too."""
    accepting = ruleset.accepting_kinds(name)
    kinds = {rule.kind for rule in accepting if _accepts_port(rule, _FTP)}
    if _is_known_to_be_open(ruleset, name) or any(map(_accepts_data, accepting)):
        return ()
    return kinds


def _is_known_to_be_open(ruleset: ReadRuleset, name: str) -> bool:
    """Whether new connections are accepted, by a rule or by a policy that a file states."""
    end = usual_end(ruleset.kinds, name, SamplePacket("tcp"))
    if end is not None:
        return end.result == "ACCEPT"
    chain = ruleset.chains[name]
    return chain.policy == "ACCEPT" and chain.origin is not None


def _accepts_port(rule: ReadRule, port: PortRange) -> bool:
    return port in read_ports(rule.value("--dport") or "")


def _accepts_data(rule: ReadRule) -> bool:
    """Whether a rule accepts a range of ports for passive data connections, or those of active ones."""
    ports = rule.value("--dport")
    if ports is None:
        return _FTP_DATA in read_ports(rule.value("--sport") or "")
    return any(one.last > max(one.first, _LAST_PRIVILEGED) for one in read_ports(ports))
