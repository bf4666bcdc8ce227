"""Warnings about chains: rules that no packet reaches, what belongs to other programs, what a closed chain lacks.

A chain is closed by its policy, or by a last rule that drops or rejects every packet that gets there.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.chain_graph import chains_reached
from fwguardd.ruleset.model import Chain, Family, Finding, Origin, Ruleset, Severity, Table
from fwguardd.ruleset.rule_view import RuleView, jump_target, target_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.model import Candidate, Rule
    from fwguardd.ruleset.preserve import Preserve

_ENDING_TARGETS = frozenset({"ACCEPT", "DROP", "REJECT", "RETURN", "QUEUE"})
_CLOSING_TARGETS = frozenset({"DROP", "REJECT"})
# A chain of the user that is named LOGDROP or the like drops too.
_NOT_ACCEPTING = ("DROP", "REJECT", "LOG", "RETURN")
_USEFUL_WITHOUT_TARGET = ("recent", "nfacct", "set", "rateest", "quota")
_ICMPV6_PROTOCOLS = frozenset({"ipv6-icmp", "icmpv6", "icmp6", "58"})
_SOLICITATION = ("135", "neighbour-solicitation", "neighbor-solicitation")
_ADVERTISEMENT = ("136", "neighbour-advertisement", "neighbor-advertisement")
_LOOPBACK_OPTIONS = {"INPUT": "-i", "OUTPUT": "-o"}
_REPLIES = {
    "INPUT": "replies to connections of this host",
    "OUTPUT": "replies of the services on this host",
    "FORWARD": "replies in the connections that it forwards",
}
_REMOVE_PATTERN = "or, to manage it with fwguardd, remove its pattern from preserve: in fwguardd.yaml"


def lint_chains(candidate: Candidate, preserve: Preserve) -> Iterator[Finding]:
    """All warnings about the chains of a candidate."""
    for ruleset in candidate.rulesets.values():
        for table in ruleset.tables.values():
            yield from _lint_table(table, ruleset.family, preserve)
        yield from _lint_ftp(ruleset)
    yield from _lint_closed_chains(candidate.rulesets)
    yield from _lint_parity(candidate.rulesets)


def lint_preserved(rehearsed: Canonical, preserve: Preserve) -> Iterator[Finding]:
    """Rules that are not loaded because their canonical text matches a pattern for rules of other programs."""
    for ruleset in rehearsed.rulesets.values():
        for table, chain in ruleset.chains():
            if chain.policy is None and preserve.keeps_name(chain.name):
                continue
            for rule in chain.rules:
                if preserve.keeps_text(rule.text, table.name, chain.name) and not preserve.keeps_jump(rule):
                    message = "this rule matches a pattern for rules of other programs (preserve), and is not loaded"
                    hint = f"remove it here: the program adds it; {_REMOVE_PATTERN}"
                    yield Finding("preserved-rule", message, rule.origin, Severity.WARNING, hint)


def _lint_table(table: Table, family: Family, preserve: Preserve) -> Iterator[Finding]:
    jumps: set[str | None] = set()
    for chain in table.chains.values():
        targets = [jump_target(rule.text) for rule in chain.rules]
        jumps.update(targets)
        yield from _lint_jumps(chain, targets, preserve)
        if preserve.keeps_chain(chain):
            yield _preserved_chain(chain)
        else:
            yield from _lint_rules(table, chain, family)
    for chain in table.chains.values():
        if chain.policy is None and chain.name not in jumps and not preserve.keeps_name(chain.name):
            yield from _lint_unused(table, chain)


def _lint_jumps(chain: Chain, targets: Sequence[str | None], preserve: Preserve) -> Iterator[Finding]:
    preserved = {target for target in set(targets) if target is not None and preserve.keeps_name(target)}
    for rule, target in zip(chain.rules, targets, strict=True):
        if target in preserved:
            message = f"chain {target} belongs to another program (preserve): jumps to it are not loaded"
            hint = f"remove the rule here: the program that makes {target} adds it; {_REMOVE_PATTERN}"
            yield Finding("preserved-chain", message, rule.origin, Severity.WARNING, hint)


def _preserved_chain(chain: Chain) -> Finding:
    message = f"chain {chain.name} belongs to another program (preserve): what is written here is not loaded"
    hint = f"remove it here; {_REMOVE_PATTERN}"
    return Finding("preserved-chain", message, _first_origin(chain), Severity.WARNING, hint)


def _lint_unused(table: Table, chain: Chain) -> Iterator[Finding]:
    if chain.origin is None:
        return  # No file declares the chain, which is an error of its own.
    message = f"no rule of table {table.name} jumps to chain {chain.name}"
    hint = f'add a rule with "-j {chain.name}", or remove the chain'
    if chain.name.upper() in table.chains:
        hint = f"write {chain.name.upper()} if you mean that chain: names are case-sensitive"
    yield Finding("unused-chain", message, chain.origin, Severity.WARNING, hint)


def _lint_rules(table: Table, chain: Chain, family: Family) -> Iterator[Finding]:
    """The rules of a chain, up to the first one that no packet reaches."""
    end: Rule | None = None
    seen: dict[str, Origin | None] = {}
    for rule in chain.rules:
        if end is not None:
            yield _unreachable(table, chain, rule, end, family)
            return
        if rule.text in seen:
            message = f"the same rule as at {seen[rule.text]}, in the same chain"
            hint = "remove one of the two"
            yield Finding("duplicate-rule", message, rule.origin, Severity.WARNING, hint, family=family)
        elif _does_nothing(rule.text):
            message = "a rule without -j only counts packets"
            yield Finding("no-target", message, rule.origin, Severity.WARNING, 'add "-j ACCEPT", or another target')
        seen.setdefault(rule.text, rule.origin)
        if _takes_every_packet(rule.text, _ENDING_TARGETS):
            end = rule


def _unreachable(table: Table, chain: Chain, rule: Rule, end: Rule, family: Family) -> Finding:
    place = f"{table.name} {chain.name}"
    message = f"no packet reaches this rule: in {place} the {target_of(end.text)} at {end.origin} matches them all"
    hint = "move it above that rule, or remove it"
    return Finding("unreachable-rule", message, rule.origin, Severity.WARNING, hint, family=family)


def _does_nothing(text: str) -> bool:
    if target_of(text) is not None:
        return False
    view = RuleView.of(text)
    return not any(view.uses(module) for module in _USEFUL_WITHOUT_TARGET)


def _takes_every_packet(text: str, targets: Collection[str]) -> bool:
    """Whether the rule has one of these targets and no condition."""
    if not text.startswith(("-j", "--j")) or target_of(text) not in targets:
        return False
    return all(option.name in ("-j", "--reject-with") for option in RuleView.of(text).options)


def _lint_ftp(ruleset: Ruleset) -> Iterator[Finding]:
    rules = [(table.name, chain.name, rule) for table, chain in ruleset.chains() for rule in chain.rules]
    if any("--helper" in rule.text and RuleView.of(rule.text).value("--helper") == "ftp" for _, _, rule in rules):
        return
    for table, chain, rule in rules:
        if table == "filter" and _accepts_ftp(rule.text):
            message = "FTP is accepted without its conntrack helper: logins work, transfers and listings hang"
            start = "OUTPUT" if chain == "OUTPUT" else "PREROUTING"
            hint = f'add "-t raw -A {start} -p tcp --dport 21 -j CT --helper ftp"'
            yield Finding("ftp-without-helper", message, rule.origin, Severity.WARNING, hint)


def _accepts_ftp(text: str) -> bool:
    if ("21" not in text and "ftp" not in text) or "ACCEPT" not in text:
        return False
    view = RuleView.of(text)
    ports = _wanted(view, "--dport", "--dports").split(",")
    return view.target == "ACCEPT" and ("21" in ports or "ftp" in ports)


def _wanted(view: RuleView, *names: str) -> str:
    """The value of the first of these options that the rule has and that is not negated; empty where there is none."""
    for name in names:
        option = view.option(name)
        if option is not None and not option.negated:
            return option.value
    return ""


@dataclass(frozen=True, slots=True)
class _Accepted:
    """The rules of a chain, and of all chains that it leads to, that accept packets or jump on."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, start: str) -> _Accepted:
        """Those of the chain ``start``."""
        found: list[str] = []
        for name in chains_reached(table, (start,)):
            for rule in table.chains[name].rules:
                target = target_of(rule.text)
                if target is not None and not target.startswith(_NOT_ACCEPTING):
                    found.append(rule.text)
        return cls(tuple(found))

    @property
    def everything(self) -> bool:
        """Whether a rule accepts every packet."""
        return "-j ACCEPT" in self.texts

    def _views(self, part: str) -> Iterator[RuleView]:
        """The views of the rules with this in their text. Views of all rules would take long."""
        for text in self.texts:
            if part in text:
                yield RuleView.of(text)

    @property
    def established(self) -> bool:
        """Whether a rule accepts packets of established connections."""
        states = [_wanted(view, "--ctstate", "--state") for view in self._views("ESTABLISHED")]
        return self.everything or any("ESTABLISHED" in one for one in states)

    def loopback(self, option: str) -> bool:
        """Whether a rule accepts packets of the loopback interface. ``option`` is -i or -o."""
        interfaces = [_wanted(view, option) for view in self._views("lo")]
        return self.everything or "lo" in interfaces

    @property
    def neighbour_discovery(self) -> bool:
        """Whether ICMPv6 of every type is accepted, or solicitations and advertisements of neighbours are."""
        types = [view.value("--icmpv6-type") for view in (*self._views("icmp"), *self._views("58")) if _is_icmpv6(view)]
        if self.everything or None in types:
            return True
        return not set(_SOLICITATION).isdisjoint(types) and not set(_ADVERTISEMENT).isdisjoint(types)

    @property
    def one_way(self) -> bool:
        """Whether packets are accepted, and no rule accepts the replies: neither by the state of a connection nor by
        naming the same two ends the other way round."""
        if self.established:
            return False
        ways = {_way(view) for view in self._views("") if not _is_icmpv6(view)}
        one_way = {(start, end) for start, end in ways if start != end}
        return bool(one_way) and not any((end, start) in one_way for start, end in one_way)


def _is_icmpv6(view: RuleView) -> bool:
    return (view.value("-p") or "").lower() in _ICMPV6_PROTOCOLS


_End = tuple[str | None, str | None, bool]


def _way(view: RuleView) -> tuple[_End, _End]:
    """Where a packet comes from and where it goes to, as far as the rule says. The number of a port does not count."""
    source = view.value("-i"), view.value("-s"), view.has("--sport") or view.has("--sports")
    destination = view.value("-o"), view.value("-d"), view.has("--dport") or view.has("--dports")
    return source, destination


def _lint_closed_chains(rulesets: Mapping[Family, Ruleset]) -> Iterator[Finding]:
    """Closed built-in chains of table filter in which no rule accepts replies, loopback or neighbour discovery."""
    tables = {family: ruleset.tables["filter"] for family, ruleset in rulesets.items() if "filter" in ruleset.tables}
    for name in _REPLIES:
        closed: dict[Family, Chain] = {}
        accepted: dict[Family, _Accepted] = {}
        for family, table in tables.items():
            if _is_closed(table.chains[name]):
                closed[family] = table.chains[name]
                accepted[family] = _Accepted.of(table, name)
        yield from _lint_replies(name, closed, accepted)
        if name in _LOOPBACK_OPTIONS:
            yield from _lint_loopback(name, closed, accepted)
            yield from _lint_neighbours(name, closed, accepted)


_Closed = dict[Family, Chain]


def _lint_replies(name: str, closed: _Closed, accepted: Mapping[Family, _Accepted]) -> Iterator[Finding]:
    if name == "FORWARD":
        lacking = [family for family, rules in accepted.items() if rules.one_way]
    else:
        lacking = [family for family, rules in accepted.items() if not rules.established]
    message = f"{name} is closed, and no rule accepts {_REPLIES[name]}"
    match = "-m conntrack --ctstate ESTABLISHED,RELATED"
    yield from _lacking_rules(closed, lacking, Finding("no-established", message), match)


def _lint_loopback(name: str, closed: _Closed, accepted: Mapping[Family, _Accepted]) -> Iterator[Finding]:
    option = _LOOPBACK_OPTIONS[name]
    lacking = [family for family, rules in accepted.items() if not rules.loopback(option)]
    message = f"{name} is closed, and no rule accepts loopback: programs on this host cannot reach each other"
    yield from _lacking_rules(closed, lacking, Finding("no-loopback", message), f"{option} lo")


def _lint_neighbours(name: str, closed: _Closed, accepted: Mapping[Family, _Accepted]) -> Iterator[Finding]:
    ipv6 = accepted.get(Family.IPV6)
    if ipv6 is None or ipv6.neighbour_discovery:
        return
    message = f"{name} is closed, and no rule accepts neighbour discovery, without which IPv6 does not work"
    only_ipv6 = {Family.IPV6: closed[Family.IPV6]}
    for finding in _lacking_rules(
        only_ipv6, (Family.IPV6,), Finding("no-neighbour-discovery", message), "-p ipv6-icmp"
    ):
        yield replace(finding, hint=f"{finding.hint}, or at least types 133 to 136")


def _lacking_rules(closed: _Closed, lacking: Iterable[Family], finding: Finding, match: str) -> Iterator[Finding]:
    """The finding for each place that closes the chain in a family that lacks a rule. It names the family where the
    chain of the other family has the rule."""
    places: dict[Origin | None, list[Family]] = {}
    for family in lacking:
        places.setdefault(_closing_place(closed[family]), []).append(family)
    for origin, families in places.items():
        alone = families[0] if len(families) < len(closed) else None
        option = f"-{alone.number} " if alone is not None else ""
        chain = closed[families[0]]
        # A rule that is appended behind the one that closes the chain would never match.
        verb = "-A" if chain.policy == "DROP" else "-I"
        hint = f'add "{option}{verb} {chain.name} {match} -j ACCEPT"'
        yield replace(finding, origin=origin, severity=Severity.WARNING, hint=hint, family=alone)


def _lint_parity(rulesets: Mapping[Family, Ruleset]) -> Iterator[Finding]:
    """INPUT closed for IPv4 and open for IPv6: the host looks closed and is not."""
    ipv4 = _filter_input(rulesets.get(Family.IPV4))
    ipv6 = _filter_input(rulesets.get(Family.IPV6))
    if ipv4 is None or not _is_closed(ipv4):
        return
    if ipv6 is not None and (_is_closed(ipv6) or _hands_on_every_packet(ipv6)):
        return
    hint = 'add "-6 -P INPUT DROP", in a file whose name does not end in .v4.rules'
    if ipv4.policy != "DROP":
        hint = 'close it for IPv6 too: "-6 -A INPUT -j REJECT"'
    message = "INPUT is closed for IPv4 and open for IPv6"
    yield Finding("ipv6-open", message, _closing_place(ipv4), Severity.WARNING, hint)


def _filter_input(ruleset: Ruleset | None) -> Chain | None:
    if ruleset is None or "filter" not in ruleset.tables:
        return None
    return ruleset.tables["filter"].chains["INPUT"]


def _is_closed(chain: Chain) -> bool:
    if chain.policy == "DROP":
        return True
    return bool(chain.rules) and _takes_every_packet(chain.rules[-1].text, _CLOSING_TARGETS)


def _hands_on_every_packet(chain: Chain) -> bool:
    """Whether the last rule has a target and no condition. What the chain that it jumps to does is not looked at."""
    return bool(chain.rules) and chain.rules[-1].text.startswith(("-j ", "-g "))


def _closing_place(chain: Chain) -> Origin | None:
    if chain.policy != "DROP":
        return chain.rules[-1].origin
    return _first_origin(chain)


def _first_origin(chain: Chain) -> Origin | None:
    """Where the chain is declared, or else where its first rule is."""
    if chain.origin is None and chain.rules:
        return chain.rules[0].origin
    return chain.origin
