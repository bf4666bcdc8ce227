"""The rules of other programs in owned tables as text for a terminal: what is to be decided about comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ctl.answers import escaped
from fwguardd.wording import local_time

if TYPE_CHECKING:
    from fwguardd.control.documents import OtherRuleDocument, OthersDocument
    from fwguardd.ctl.answers import AnswerPainter


def others(result: OthersDocument, ink: AnswerPainter) -> list[str]:
    """Each rule with its number, who added it, and the line that preserves it; then what to do."""
    rules = sorted(result["rules"], key=_is_decided)
    if not rules:
        return ["No rule of another program is remembered in the tables that fwguardd owns."]
    lines: list[str] = []
    for rule in rules:
        lines += _rule(rule, ink)
    if not _is_decided(rules[0]):
        lines.append("to keep them: fwguardctl adopt N... or --all; to remove them: fwguardctl adopt --remove N...")
    return lines


def _is_decided(rule: OtherRuleDocument) -> bool:
    return rule["standing"] != "undecided"


def _rule(rule: OtherRuleDocument, ink: AnswerPainter) -> list[str]:
    paint = ink.good
    if rule["standing"] != "kept":
        paint = ink.warn
    place = f"{rule['family']} {rule['table']} -N {rule['chain']}, with all that is in it"
    if rule["rule"] is not None:
        place = f"{rule['family']} {rule['table']} -A {rule['chain']} {rule['rule']}"
    who = f"since {local_time(rule['when'])}, by {escaped(rule['who'])}"
    return [
        f"{rule['number']:>4}  {paint(rule['standing'])}  {escaped(place)}",
        f"      {who}",
        f"      {escaped(rule['preserve'])}",
    ]
