"""Errors of iptables-restore: which line they name, and what they mean for the author of the rule.

The forms are those of iptables 1.8.9, both backends, and of the other 1.8 versions. `fwguardd.ruleset.error_reasons`
has the known errors; another one is passed on in the words of the program. An error may name no line, the line of
COMMIT, or, for a chain that does not exist, the line after: then the rehearsal finds the rule by trying.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.error_reasons import Explanation, explain_words
from fwguardd.ruleset.model import VERDICTS
from fwguardd.ruleset.rule_view import target_of
from fwguardd.ruleset.suggestions import XTABLES_ADDONS, how_to_declare, how_to_get_addon, nearest_target
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Table

_LINES = (
    pattern(r"^line ([0-9]+): ([A-Z_]+ failed .*)$", re.MULTILINE),
    pattern(r"Error occurred at line: ([0-9]+)"),
    pattern(r"line:? ([0-9]+) failed(?:: (.*))?"),
    pattern(r"line ([0-9]+)\b"),
)
_PROGRAM = pattern(
    r"^ip6?tables(?:-nft|-legacy)?-restore(?: v[0-9][^ ]*)?(?: \([a-z_]+\))?: ?(?:ip6?tables[a-z-]*-restore: )?"
)
_NOISE = pattern(r"^(?:Error occurred at line: [0-9]+|Try `.*' for more information\.|# Warning: .*)?$")
_LINE_OF_REHEARSAL = pattern(r"\bline:? [0-9]+(?:: ?| )")
_MISSING_CHAIN = pattern(r"Chain '([^']+)' does not exist|Couldn't load target `([^']+)'")


@dataclass(frozen=True, slots=True)
class RestoreError:
    """An error of iptables-restore. ``line`` is the line that it names, ``words`` what it prints without noise.
    ``names_rule`` says that the line is that of the refused rule, and not only where the error was noticed."""

    line: int | None
    words: str
    names_rule: bool

    @property
    def missing_chain(self) -> str:
        """The chain that a rule jumps to and that does not exist; empty for another error."""
        match = _MISSING_CHAIN.search(self.words)
        if match is None:
            return ""
        return match[1] or match[2]


def read_restore_error(stderr: str) -> RestoreError:
    """The error in the standard error of a failed iptables-restore. Never raises."""
    line = _line_named(stderr)
    names_rule = line is not None and "does not exist" not in stderr
    return RestoreError(line, _without_noise(stderr) or "iptables-restore gave no reason", names_rule)


def _line_named(stderr: str) -> int | None:
    for each in _LINES:
        match = each.search(stderr)
        if match:
            return int(match[1][:9])
    return None


def _without_noise(stderr: str) -> str:
    words: list[str] = []
    for printed in stderr.splitlines():
        text = _PROGRAM.sub("", printed).strip()
        if not _NOISE.match(text):
            words.append(text)
    return "; ".join(words)


def explain(error: RestoreError, rule: str, loop: tuple[str, ...] = (), table: Table | None = None) -> Explanation:
    """The explanation of an error about a rule with this text. ``loop`` is the loop of chains that the rule closes, and
    ``table`` the table that it is in."""
    if error.missing_chain:
        return _missing_chain(error.missing_chain, table)
    if loop:
        message = f"the jump closes a loop of chains: {' → '.join(loop)}"
        return Explanation("chain-loop", message, "remove one of the jumps")
    explanation = explain_words(error.words, rule)
    if explanation is not None:
        return explanation
    words = _LINE_OF_REHEARSAL.sub("", error.words)
    return Explanation("refused", f"iptables refuses the rule: {words}", _manual_entry(words, rule))


def _manual_entry(words: str, rule: str) -> str:
    """Where the manual describes what was refused. A match often begins its error with its own name."""
    first = words.partition(" ")[0].rstrip(":")
    if f"-m {first} " in rule:
        return f"see {first} in iptables-extensions(8)"
    target = target_of(rule)
    if target is None or target in VERDICTS:
        return "see the options of the rule in iptables-extensions(8)"
    return f"see {target} in iptables-extensions(8)"


def _missing_chain(target: str, table: Table | None) -> Explanation:
    if target in XTABLES_ADDONS:
        message = f"{target} is a target of xtables-addons, which is not installed"
        return Explanation("missing-extension", message, how_to_get_addon(target))
    message = f"jump to chain {target}, which is neither declared in a file nor a target"
    name, chains = "filter", tuple[str, ...]()
    if table is not None:
        name, chains = table.name, tuple(table.chains)
    how = f'"{how_to_declare(target, name)}"'
    return Explanation("undeclared-chain", message, _nearest_or_declare(nearest_target(target, chains), how))


def _nearest_or_declare(nearest: str | None, how: str) -> str:
    if nearest:
        return f"write {nearest} if you mean that, or declare the chain: {how}"
    return f"declare it: {how}; or correct its spelling"
