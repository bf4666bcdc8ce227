"""Warnings about chains as wholes: what a closed chain forgot, what no packet reaches, what belongs to others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fwguardd.ruleset.complaints import jump_target
from fwguardd.ruleset.lint_closed import lint_closed_chains, lint_parity
from fwguardd.ruleset.model import Chain, Family, Finding, Origin, Ruleset, Severity, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwguardd.ruleset.model import Candidate, Rehearsed
    from fwguardd.ruleset.preserve import Preserve

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


def lint_preserved(rehearsed: Rehearsed, preserve: Preserve) -> Iterator[Finding]:
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
