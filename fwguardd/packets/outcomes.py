"""What a rule does to a packet that matches it, by its target.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.ruleset.model import VERDICTS
from fwguardd.ruleset.rule_view import RuleView, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.packets.bed_rules import BedRules
    from fwguardd.ruleset.model import Rule

_OUTCOMES: Final[Mapping[str | None, str]] = {
    **{verdict: verdict.lower() for verdict in VERDICTS},
    **dict.fromkeys(("DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "SAME", "DNPT", "SNPT"), "accept"),
}
"""What targets do; after those of NAT a packet traverses no other rule of its table."""
_SAID_BY_TARGET: Final[Mapping[str | None, str]] = {
    "REJECT": "reject",
    **dict.fromkeys(("QUEUE", "NFQUEUE", "SYNPROXY", "TPROXY", "TARPIT", "CLUSTERIP"), "queue"),
}
"""Targets for which the trace of nf_tables says less. The latter leave the verdict to something that a bed does not
have: a program, a socket, another host."""


def outcome_of(rules: BedRules, table: str, rule: Rule, traced: str = "") -> str:
    """The outcome of a rule (`fwguardd.packets.model.Step`), where a trace says ``traced`` or nothing of it."""
    target = target_of(rule.text)
    if target in _SAID_BY_TARGET:
        return _SAID_BY_TARGET[target]
    return traced or _outcome_of_target(rules, table, rule, target)


def _outcome_of_target(rules: BedRules, table: str, rule: Rule, target: str | None) -> str:
    if target in _OUTCOMES:
        return _OUTCOMES[target]
    if target is None or not rules.has_chain(table, target):
        return "continue"
    if RuleView.of(rule.text).is_goto:
        return f"goto {target}"
    return f"jump {target}"
