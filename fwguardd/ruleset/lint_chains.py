"""Loops of chains, for a refusal that names none: legacy iptables says only that COMMIT failed.

Warnings about chains as wholes: what a closed chain forgot, what no packet reaches, what belongs to others.

Warnings about closed chains: what a closed INPUT or OUTPUT forgot to let through, and a host closed for IPv4 alone.

A chain is closed by its policy, or by a last rule that drops or rejects whatever comes so far.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Family, Finding, Origin, Ruleset, Severity, Table
from fwguardd.ruleset.rule_view import jump_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.model import Candidate, Table
    from fwguardd.ruleset.preserve import Preserve


def loop_closed_by(table: Table, chain: str, rule_text: str) -> tuple[str, ...]:
    """The chains of the loop that a rule in ``chain`` closes, from that chain back to it; empty if it closes none."""
    target = jump_target(rule_text)
    if target is None or target not in table.chains:
        return ()
    if target == chain:
        return (chain, chain)
    paths: dict[str, tuple[str, ...]] = {target: (chain, target)}
    waiting = [target]
    while waiting:
        current = waiting.pop()
        for rule in table.chains[current].rules:
            following = jump_target(rule.text)
            if following == chain:
                return (*paths[current], chain)
            if following is not None and following in table.chains and following not in paths:
                paths[following] = (*paths[current], following)
                waiting.append(following)
    return ()


_UNCONDITIONAL = re.compile(
    r"(?:-j|--jump)[ \t]+(ACCEPT|DROP|REJECT|RETURN|QUEUE)(?:[ \t]+--reject-with[ \t]+[^ \t]+)?$"
)
_TARGET = re.compile(r'(?:^|[ \t"])(?:-j|-g|--j[a-z]*|--g[a-z]*)(?:[ \t="]|$)|(?:^|[ \t])-g[^ \t]')
_WORKS_WITHOUT = re.compile(r"-m[ \t]+(?:recent|nfacct|set|rateest|quota)\b")
_FTP_PORT = re.compile(r"--dports?[ \t]+(?:[0-9a-z:]+,)*(?:21|ftp)(?:,|[ \t]|$)")


def lint_chains(candidate: Candidate, preserve: Preserve) -> Iterator[Finding]:
    """All warnings about the chains of a candidate."""
    for ruleset in candidate.rulesets.values():
        for table in ruleset.tables.values():
            jumps: set[str | None] = set()
            for chain in table.chains.values():
                targets = [jump_target(rule.text) for rule in chain.rules]
                jumps.update(targets)
                yield from _lint_jumps(chain, targets, preserve)
                if chain.policy is None and preserve.keeps_name(chain.name):
                    yield _left_out(chain)
                else:
                    yield from _lint_rules(table, chain, ruleset.family)
            for chain in table.chains.values():
                if chain.policy is None and chain.name not in jumps and not preserve.keeps_name(chain.name):
                    yield from _lint_unused(table, chain)
        yield from _lint_ftp(ruleset)
    yield from lint_closed_chains(candidate.rulesets)
    yield from lint_parity(candidate.rulesets)


def _lint_unused(table: Table, chain: Chain) -> Iterator[Finding]:
    if chain.origin is None:
        return  # Rules for a chain that no file declares: that is told as an error.
    message = f"no rule of table {table.name} jumps to chain {chain.name}"
    hint = f'add a rule with "-j {chain.name}", or remove the chain'
    if chain.name.upper() in table.chains:
        hint = f"write {chain.name.upper()} if you mean that: case matters"
    yield Finding("unused-chain", message, chain.origin, Severity.WARNING, hint)


def _left_out(chain: Chain) -> Finding:
    message = f"chain {chain.name} belongs to somebody else (preserve): what is written here is left out"
    hint = "remove it here; or, to own it, take it out of preserve: in fwguardd.yaml"
    return Finding("preserved-chain", message, _origin(chain), Severity.WARNING, hint)


def _lint_rules(table: Table, chain: Chain, family: Family) -> Iterator[Finding]:
    ended: str = ""
    seen: dict[str, Origin | None] = {}
    for rule in chain.rules:
        if ended:
            message = f"no packet gets this far in {table.name} {chain.name}: {ended} takes them all"
            hint = "move it above that rule, or remove it"
            yield Finding("unreachable-rule", message, rule.origin, Severity.WARNING, hint, family=family)
            return
        if rule.text in seen:
            message = f"the same rule as at {seen[rule.text]}, in the same chain"
            hint = "remove one of the two"
            yield Finding("duplicate-rule", message, rule.origin, Severity.WARNING, hint, family=family)
        elif not _TARGET.search(rule.text) and not _WORKS_WITHOUT.search(rule.text):
            message = "a rule without -j counts packets, and does nothing else"
            yield Finding("no-target", message, rule.origin, Severity.WARNING, 'add "-j ACCEPT", or another target')
        seen.setdefault(rule.text, rule.origin)
        match = _UNCONDITIONAL.match(rule.text)
        ended = f"the {match[1]} at {rule.origin}" if match else ""


def _lint_jumps(chain: Chain, targets: Sequence[str | None], preserve: Preserve) -> Iterator[Finding]:
    theirs = {target for target in set(targets) if target is not None and preserve.keeps_name(target)}
    for rule, target in zip(chain.rules, targets, strict=True):
        if target in theirs:
            message = f"chain {target} belongs to somebody else (preserve), and so do jumps to it: this is left out"
            hint = (
                f"leave it to whoever makes {target}; or, to own the chain, take it out of preserve: in fwguardd.yaml"
            )
            yield Finding("preserved-chain", message, rule.origin, Severity.WARNING, hint)


def lint_preserved(rehearsed: Canonical, preserve: Preserve) -> Iterator[Finding]:
    """Rules that are left out because their canonical text is that of a rule of somebody else's."""
    for ruleset in rehearsed.rulesets.values():
        for table, chain in ruleset.chains():
            if chain.policy is None and preserve.keeps_name(chain.name):
                continue
            for rule in chain.rules:
                if preserve.keeps_text(rule.text, table.name, chain.name) and not preserve.keeps_jump(rule):
                    message = "this rule has the form of one that belongs to somebody else (preserve): it is left out"
                    hint = "leave it to whoever makes it; or, to own it, take it out of preserve: in fwguardd.yaml"
                    yield Finding("preserved-rule", message, rule.origin, Severity.WARNING, hint)


def _lint_ftp(ruleset: Ruleset) -> Iterator[Finding]:
    rules = [(table.name, chain.name, rule) for table, chain in ruleset.chains() for rule in chain.rules]
    if any("--helper ftp" in rule.text for _, _, rule in rules):
        return
    for table, chain, rule in rules:
        if table == "filter" and "ACCEPT" in rule.text and _FTP_PORT.search(rule.text):
            message = "FTP without its conntrack helper: logins work, transfers and listings hang"
            start = "OUTPUT" if chain == "OUTPUT" else "PREROUTING"
            hint = f'add "-t raw -A {start} -p tcp --dport 21 -j CT --helper ftp"'
            yield Finding("ftp-without-helper", message, rule.origin, Severity.WARNING, hint)


def _origin(chain: Chain) -> Origin | None:
    return chain.origin or next((rule.origin for rule in chain.rules), None)


_CLOSING = re.compile(r"(?:-j|--jump)[ \t]+(?:DROP|REJECT)(?:[ \t]+--reject-with[ \t]+[^ \t]+)?$")
_ACCEPT = re.compile(r"(?:^|[ \t])(?:-j|--jump|-g|--goto)[ \t]+(?!DROP|REJECT|LOG|RETURN)[^ \t]+")
_ICMPV6 = re.compile(r"ipv6-icmp|icmpv6|icmp6|-p[ \t]+58\b")
_ICMPV6_TYPE = re.compile(r"--icmpv6-type[ \t=]+([^ \t]+)")
_SOLICITATION = re.compile(r"135|neighbou?r-solicitation")
_ADVERTISEMENT = re.compile(r"136|neighbou?r-advertisement")
_LOOPBACK = {
    "INPUT": re.compile(r"(?:-i|--in-interface)[ \t]+lo(?![^ \t])"),
    "OUTPUT": re.compile(r"(?:-o|--out-interface)[ \t]+lo(?![^ \t])"),
}
_ENDS = (
    re.compile(r"(?:-i|--in-interface)[ \t]+([^ \t]+)"),
    re.compile(r"(?:-s|--source|--src)[ \t]+([^ \t]+)"),
    re.compile(r"--(?:s|source-)(port)s?[ \t]"),
    re.compile(r"(?:-o|--out-interface)[ \t]+([^ \t]+)"),
    re.compile(r"(?:-d|--destination|--dst)[ \t]+([^ \t]+)"),
    re.compile(r"--(?:d|destination-)(port)s?[ \t]"),
)
"""Where a packet comes from, and where it goes to, as far as a rule says. A port is one, whichever it is."""

_ANSWERS = {"INPUT": "answers to what this host asks", "OUTPUT": "answers of this host's services"}


def lint_closed_chains(rulesets: Mapping[Family, Ruleset]) -> Iterator[Finding]:
    """INPUT and OUTPUT that are closed, and nothing in them lets answers, loopback or IPv6's neighbours through."""
    tables = {family: ruleset.tables["filter"] for family, ruleset in rulesets.items() if "filter" in ruleset.tables}
    for name, loopback in _LOOPBACK.items():
        closed = {family: table for family, table in tables.items() if _is_closed(table.chains[name])}
        accepting = {family: _accepting(table, name) for family, table in closed.items()}
        yield from _told(
            closed, name, _lacking(accepting, lambda rule: "ESTABLISHED" in rule), "no-established",
            f"{name} is closed, also for {_ANSWERS[name]}", "-m conntrack --ctstate ESTABLISHED,RELATED",
        )  # fmt: skip
        yield from _told(
            closed, name, _lacking(accepting, loopback.search), "no-loopback",
            f"{name} is closed, and programs on this host cannot reach each other", f"-{name[0].lower()} lo",
        )  # fmt: skip
        ipv6: dict[Family, Table] = {family: table for family, table in closed.items() if family is Family.IPV6}
        for finding in _told(
            ipv6, name, [family for family in ipv6 if not _finds_neighbours(accepting[family])],
            "no-neighbour-discovery",
            f"{name} is closed, and IPv6 cannot find its neighbours: nothing will work over it", "-p ipv6-icmp",
        ):  # fmt: skip
            yield replace(finding, hint=f"{finding.hint}, or at least types 133 to 136")
    closed = {family: table for family, table in tables.items() if _is_closed(table.chains["FORWARD"])}
    one_way = [family for family, table in closed.items() if _is_one_way(_accepting(table, "FORWARD"))]
    yield from _told(
        closed, "FORWARD", one_way, "no-established",
        "FORWARD is closed, also for answers to what it lets through", "-m conntrack --ctstate ESTABLISHED,RELATED",
    )  # fmt: skip


def _is_one_way(accepting: Iterable[str]) -> bool:
    """Whether packets are let through, and no rule lets their answers come back: neither by the state of a connection
    nor by naming the same ends the other way round."""
    rules = [rule for rule in accepting if not _ICMPV6.search(rule)]
    if any("ESTABLISHED" in rule for rule in rules):
        return False
    ways = {_way(rule) for rule in rules}
    one_way = {way for way in ways if way[3:] != way[:3]}
    return bool(one_way) and not any((*way[3:], *way[:3]) in one_way for way in one_way)


def _way(rule: str) -> tuple[str, ...]:
    found = [end.search(rule) for end in _ENDS]
    return tuple("" if match is None else match[1] for match in found)


def _lacking(accepting: Mapping[Family, list[str]], lets_through: Callable[[str], object]) -> list[Family]:
    return [family for family, rules in accepting.items() if not any(lets_through(rule) for rule in rules)]


def _told(
    closed: Mapping[Family, Table], name: str, lacking: Iterable[Family], code: str, message: str, match: str
) -> Iterator[Finding]:
    """One finding for each place that closes the chain, of one family where the other has what is lacking."""
    places: dict[Origin | None, list[Family]] = {}
    for family in lacking:
        places.setdefault(_closing_place(closed[family].chains[name]), []).append(family)
    for origin, families in places.items():
        alone = families[0] if len(families) < len(closed) else None
        option = f"-{alone.number} " if alone is not None else ""
        # Behind the rule that closes a chain nothing comes any more.
        verb = "-A" if closed[families[0]].chains[name].policy == "DROP" else "-I"
        hint = f'add "{option}{verb} {name} {match} -j ACCEPT"'
        yield Finding(code, message, origin, Severity.WARNING, hint, family=alone)


def lint_parity(rulesets: Mapping[Family, Ruleset]) -> Iterator[Finding]:
    """IPv4 closed and IPv6 open: a host that looks closed and is not."""
    chains = {family: _filter_chain(ruleset, "INPUT") for family, ruleset in rulesets.items()}
    ipv4, ipv6 = (chains.get(family) for family in (Family.IPV4, Family.IPV6))
    if ipv4 is None or not _is_closed(ipv4) or (ipv6 is not None and (_is_closed(ipv6) or _takes_all(ipv6))):
        return
    hint = 'add "-6 -P INPUT DROP", in a file whose name does not end in .v4.rules'
    if ipv4.policy != "DROP":
        hint = 'close it for IPv6 too: "-6 -A INPUT -j REJECT"'
    message = "INPUT is closed for IPv4 and open for IPv6"
    yield Finding("ipv6-open", message, _closing_place(ipv4), Severity.WARNING, hint)


def _is_closed(chain: Chain) -> bool:
    return chain.policy == "DROP" or bool(chain.rules and _CLOSING.match(chain.rules[-1].text))


def _takes_all(chain: Chain) -> bool:
    """Whether the chain ends with a rule that hands everything on, to where nobody here can tell."""
    return bool(chain.rules) and chain.rules[-1].text.startswith(("-j ", "-g "))


def _closing_place(chain: Chain) -> Origin | None:
    if chain.policy != "DROP":
        return chain.rules[-1].origin
    return chain.origin or next((rule.origin for rule in chain.rules), None)


def _finds_neighbours(rules: Iterable[str]) -> bool:
    """Whether ICMPv6 of every type is let through, or solicitations and advertisements of neighbours are."""
    icmpv6 = [rule for rule in rules if _ICMPV6.search(rule)]
    types = [match[1] for rule in icmpv6 if (match := _ICMPV6_TYPE.search(rule))]
    every = len(types) < len(icmpv6)
    return every or (any(map(_SOLICITATION.match, types)) and any(map(_ADVERTISEMENT.match, types)))


def _accepting(table: Table, start: str) -> list[str]:
    """The rules that accept or jump on, in a chain and in all chains that it leads to."""
    found: list[str] = []
    waiting, known = [start], {start}
    while waiting:
        for rule in table.chains[waiting.pop()].rules:
            if _ACCEPT.search(rule.text):
                found.append(rule.text)
            target = jump_target(rule.text)
            if target is not None and target in table.chains and target not in known:
                known.add(target)
                waiting.append(target)
    # A rule that accepts everything lets all of it through.
    return [*found, "-i lo -o lo ESTABLISHED ipv6-icmp"] if any(text == "-j ACCEPT" for text in found) else found


def _filter_chain(ruleset: Ruleset, name: str) -> Chain | None:
    table = ruleset.tables.get("filter")
    return table.chains[name] if table is not None else None
