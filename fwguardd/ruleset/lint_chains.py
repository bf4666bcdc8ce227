"""Warnings about chains as wholes: what a closed chain forgot, what no packet reaches, what belongs to others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fwguardd.ruleset.complaints import jump_target
from fwguardd.ruleset.model import Chain, Family, Finding, Origin, Ruleset, Severity, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Candidate, Rehearsed
    from fwguardd.ruleset.preserve import Preserve

_UNCONDITIONAL = re.compile(
    r"(?:-j|--jump)[ \t]+(ACCEPT|DROP|REJECT|RETURN|QUEUE)(?:[ \t]+--reject-with[ \t]+[^ \t]+)?$"
)
_ACCEPT = re.compile(r"(?:^|[ \t])(?:-j|--jump|-g|--goto)[ \t]+(?!DROP|REJECT|LOG|RETURN)[^ \t]+")
_NEIGHBOUR_DISCOVERY = re.compile(r"ipv6-icmp|icmpv6|icmp6")
_FTP_PORT = re.compile(r"--dports?[ \t]+(?:[0-9a-z:]+,)*(?:21|ftp)(?:,|[ \t]|$)")
_DEVICES = {
    "INPUT": re.compile(r"(?:-i|--in-interface)[ \t]+lo\b"),
    "OUTPUT": re.compile(r"(?:-o|--out-interface)[ \t]+lo\b"),
}


def lint_chains(candidate: Candidate, preserve: Preserve) -> Iterator[Finding]:
    """All warnings about the chains of a candidate."""
    for ruleset in candidate.rulesets.values():
        for table in ruleset.tables.values():
            jumps: set[str | None] = set()
            for chain in table.chains.values():
                targets = [jump_target(rule.text) for rule in chain.rules]
                jumps.update(targets)
                yield from _lint_jumps(chain, targets, preserve)
                yield from _lint_chain(table, chain, preserve)
            for chain in table.chains.values():
                if chain.policy is None and chain.name not in jumps and not preserve.keeps_name(chain.name):
                    yield from _lint_unused(table, chain)
        yield from _lint_closed_chains(ruleset)
        yield from _lint_ftp(ruleset)
    yield from _lint_parity(candidate.rulesets)


def _lint_unused(table: Table, chain: Chain) -> Iterator[Finding]:
    if chain.origin is None:
        return  # Rules for a chain that no file declares: that is told as an error.
    message = f"no rule of table {table.name} jumps to chain {chain.name}"
    hint = f'add a rule with "-j {chain.name}", or remove the chain'
    if chain.name.upper() in table.chains:
        hint = f"write {chain.name.upper()} if you mean that: case matters"
    yield Finding("unused-chain", message, chain.origin, Severity.WARNING, hint)


def _lint_chain(table: Table, chain: Chain, preserve: Preserve) -> Iterator[Finding]:
    if chain.policy is None and preserve.keeps_name(chain.name):
        message = f"chain {chain.name} belongs to somebody else (preserve): what is written here is left out"
        yield Finding(
            "preserved-chain", message, _origin(chain), Severity.WARNING, "take it out of the file, or out of preserve:"
        )
    ended: str = ""
    seen: dict[str, Origin | None] = {}
    for rule in chain.rules:
        if ended:
            message = (
                f"no packet comes this far: {ended} before it takes all that reach it in {table.name} {chain.name}"
            )
            yield Finding("unreachable-rule", message, rule.origin, Severity.WARNING, "move it up, or remove it")
            return
        if rule.text in seen:
            message = f"the same rule as at {seen[rule.text]}, in the same chain"
            yield Finding("duplicate-rule", message, rule.origin, Severity.WARNING, "remove one of the two")
        seen.setdefault(rule.text, rule.origin)
        match = _UNCONDITIONAL.match(rule.text)
        ended = f"the {match[1]} at {rule.origin}" if match else ""


def _lint_jumps(chain: Chain, targets: Sequence[str | None], preserve: Preserve) -> Iterator[Finding]:
    theirs = {target for target in set(targets) if target is not None and preserve.keeps_name(target)}
    for rule, target in zip(chain.rules, targets, strict=True):
        if target in theirs:
            message = f"chain {target} belongs to somebody else (preserve), and so do jumps to it: this is left out"
            hint = f"leave the jump to whoever makes {target}, or take the chain out of preserve:"
            yield Finding("preserved-chain", message, rule.origin, Severity.WARNING, hint)


def lint_preserved(rehearsed: Rehearsed, preserve: Preserve) -> Iterator[Finding]:
    """Rules that are left out because their canonical text is that of a rule of somebody else's."""
    for ruleset in rehearsed.rulesets.values():
        for table, chain in ruleset.chains():
            if chain.policy is None and preserve.keeps_name(chain.name):
                continue
            for rule in chain.rules:
                if preserve.keeps_text(rule.text, table.name, chain.name) and not preserve.keeps_jump(rule):
                    message = "this rule has the form of one that belongs to somebody else (preserve): it is left out"
                    hint = "leave it to whoever makes it, or take the pattern out of preserve:"
                    yield Finding("preserved-rule", message, rule.origin, Severity.WARNING, hint)


def _lint_closed_chains(ruleset: Ruleset) -> Iterator[Finding]:
    """INPUT and OUTPUT with policy DROP, and nothing in them that lets answers or loopback through."""
    table = ruleset.tables.get("filter")
    if table is None:
        return
    for name, device in _DEVICES.items():
        chain = table.chains[name]
        if chain.policy != "DROP":
            continue
        accepting = _accepting(table, name)
        if not any("ESTABLISHED" in text for text in accepting):
            hint = f'add "-A {name} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"'
            yield _missing("no-established", f"{name} drops the packets of connections that have begun", chain, hint)
        if not any(device.search(text) for text in accepting):
            hint = f'add "-A {name} {"-i" if name == "INPUT" else "-o"} lo -j ACCEPT"'
            yield _missing("no-loopback", f"{name} drops what programs on this host say to each other", chain, hint)
        if ruleset.family is Family.IPV6 and not any(_NEIGHBOUR_DISCOVERY.search(text) for text in accepting):
            hint = f'add "-A {name} -p ipv6-icmp -j ACCEPT", or at least types 133 to 136'
            yield _missing("no-neighbour-discovery", f"{name} drops what IPv6 finds its neighbours by", chain, hint)


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


def _lint_ftp(ruleset: Ruleset) -> Iterator[Finding]:
    rules = [(table.name, rule) for table, chain in ruleset.chains() for rule in chain.rules]
    if any("--helper ftp" in rule.text for _, rule in rules):
        return
    for table, rule in rules:
        if table == "filter" and "ACCEPT" in rule.text and _FTP_PORT.search(rule.text):
            message = "FTP without its conntrack helper: logins work, transfers and listings hang"
            hint = 'add "-t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp" (OUTPUT for a client)'
            yield Finding("ftp-without-helper", message, rule.origin, Severity.WARNING, hint)


def _lint_parity(rulesets: Mapping[Family, Ruleset]) -> Iterator[Finding]:
    """IPv4 closed and IPv6 open: a host that looks closed and is not."""
    chains = {family: _filter_chain(ruleset, "INPUT") for family, ruleset in rulesets.items()}
    ipv4, ipv6 = chains.get(Family.IPV4), chains.get(Family.IPV6)
    if ipv4 is None or ipv4.policy != "DROP" or (ipv6 is not None and ipv6.policy == "DROP"):
        return
    if ipv6 is not None and ipv6.rules and _UNCONDITIONAL.match(ipv6.rules[-1].text):
        return
    hint = 'say "-P INPUT DROP" for both families, in a file or line that is not for IPv4 only'
    yield _missing("ipv6-open", "INPUT is closed for IPv4 and open for IPv6", ipv4, hint)


def _filter_chain(ruleset: Ruleset, name: str) -> Chain | None:
    table = ruleset.tables.get("filter")
    return table.chains[name] if table is not None else None


def _missing(code: str, message: str, chain: Chain, hint: str) -> Finding:
    return Finding(code, message, _origin(chain), Severity.WARNING, hint)


def _origin(chain: Chain) -> Origin | None:
    return chain.origin or next((rule.origin for rule in chain.rules), None)
