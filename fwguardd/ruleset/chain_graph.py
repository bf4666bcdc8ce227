"""Where the chains of a table lead to by the jumps of their rules.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.rule_view import jump_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwguardd.ruleset.model import Table


def chains_reached(table: Table, starts: Iterable[str]) -> tuple[str, ...]:
    """The names of the given chains of the table, and of all chains that packets in them can get to by jumps."""
    reached = dict.fromkeys(starts)
    waiting = list(reached)
    while waiting:
        for target in chains_after(table, waiting.pop()):
            if target not in reached:
                reached[target] = None
                waiting.append(target)
    return tuple(reached)


def chains_after(table: Table, chain: str) -> Iterator[str]:
    """The chains of the table that the rules of a chain jump to, one for each such rule."""
    for rule in table.chains[chain].rules:
        target = jump_target(rule.text)
        if target is not None and target in table.chains:
            yield target


def loop_closed_by(table: Table, chain: str, rule_text: str) -> tuple[str, ...]:
    """The chains of the loop that a rule in ``chain`` closes, from that chain back to it; empty if it closes none."""
    target = jump_target(rule_text)
    if target is None or target not in table.chains:
        return ()
    return _paths_from(table, target, stop=chain).get(chain, ())


def _paths_from(table: Table, start: str, *, stop: str) -> dict[str, tuple[str, ...]]:
    """The chains that ``start`` leads to, each with a way to it from ``stop`` through ``start``; up to ``stop`` itself,
    if it is one of them."""
    paths: dict[str, tuple[str, ...]] = {start: (stop, start)}
    waiting = [start]
    while waiting and stop not in paths:
        current = waiting.pop()
        for following in chains_after(table, current):
            if following not in paths:
                paths[following] = (*paths[current], following)
                waiting.append(following)
    return paths
