"""What iptables-restore says when it refuses a text -> which line it means, and what that is in plain words.

The shapes are those of 1.8.9, both backends, and of the other 1.8 versions; whatever matches none of them is passed
on in the tool's own words. A complaint may name no line, or the line of COMMIT, or (nft, for a chain that does not
exist) the line after: `RestoreError.line` is then None or only a hint, and the rehearsal finds the rule by trying.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.ruleset.reasons import Explanation, explain_reason
from fwguardd.ruleset.rule_view import jump_target
from fwguardd.ruleset.suggestions import how_to_declare, nearest_target

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Table

_LINES = (
    re.compile(r"^line ([0-9]+): ([A-Z_]+ failed .*)$", re.MULTILINE),
    re.compile(r"Error occurred at line: ([0-9]+)"),
    re.compile(r"line:? ([0-9]+) failed(?:: (.*))?"),
    re.compile(r"line ([0-9]+)\b"),
)
_PROGRAM = re.compile(
    r"^ip6?tables(?:-nft|-legacy)?-restore(?: v[0-9][^ ]*)?(?: \([a-z_]+\))?: ?(?:ip6?tables[a-z-]*-restore: )?"
)
_NOISE = re.compile(r"^(?:Error occurred at line: [0-9]+|Try `.*' for more information\.|# Warning: .*)?$")
_MISSING_CHAIN = (re.compile(r"Chain '([^']+)' does not exist"), re.compile(r"Couldn't load target `([^']+)'"))


@dataclass(frozen=True, slots=True)
class RestoreError:
    """A refusal: the line that the tool names, if any; its own words without noise; and whether the line is for certain
    that of the guilty rule, or only where the tool stood when it noticed."""

    line: int | None
    words: str
    names_rule: bool


def read_restore_error(stderr: str) -> RestoreError:
    """What a failed iptables-restore meant by its standard error. Never raises."""
    line: int | None = None
    for pattern in _LINES:
        match = pattern.search(stderr)
        if match:
            line = int(match[1][:9])
            break
    missing_chain = "does not exist" in stderr
    said = [_PROGRAM.sub("", text).strip() for text in stderr.splitlines()]
    words = "; ".join(text for text in said if not _NOISE.match(text))
    return RestoreError(
        line, words or "iptables-restore gave no reason", names_rule=line is not None and not missing_chain
    )


def explain(complaint: RestoreError, rule: str, loop: tuple[str, ...] = (), table: Table | None = None) -> Explanation:
    """The plain words for a complaint about this rule text. ``loop`` is the loop of chains that the rule closes, and
    ``table`` the one that it is in."""
    for pattern in _MISSING_CHAIN:
        match = pattern.search(complaint.words)
        if match:
            return _missing_chain(match[1], table)
    if loop:
        message = f"the jump closes a loop of chains: {' → '.join(loop)}"
        return Explanation("chain-loop", message, "remove one of the jumps")
    known = explain_reason(complaint.words, rule)
    if known is not None:
        return known
    hint = f"iptables-extensions(8) tells what {jump_target(rule) or 'each option'} allows"
    return Explanation("refused", f"iptables refuses it: {complaint.words}", hint)


def _missing_chain(target: str, table: Table | None) -> Explanation:
    message = f"jump to chain {target}, which no file declares, and no target has that name"
    how = f'"{how_to_declare(target, table.name if table else "filter")}"'
    meant = nearest_target(target, table.chains if table else ())
    if meant:
        return Explanation("undeclared-chain", message, f"write {meant} if you mean that, or declare the chain: {how}")
    return Explanation("undeclared-chain", message, f"declare it: {how}; or correct its spelling")
