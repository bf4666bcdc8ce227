"""Loops of chains, for a refusal that names none: legacy iptables says only that COMMIT failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.complaints import jump_target

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Table


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
