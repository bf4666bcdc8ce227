"""Why the kernel refuses a rule: found by loading variants of it in the temporary namespace.

The kernel answers EINVAL for a rule that lacks a protocol, that stands in the wrong chain or table, and that the other
family alone has. So the rule is tried alone: in the other family, with a protocol, without each of its extensions, and
in the other chains and tables. The kernel's log has a line about some refusals (xt_TPROXY, xt_CT and others).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd.kernel.kmsg import KernelLog, KernelLogError, Record, Start
from fwguardd.ruleset.model import FAMILIES, Family, Ruleset, Table
from fwguardd.ruleset.rule_variants import (
    PLACES,
    PROTOCOLS,
    Part,
    Place,
    extensions_of,
    listed_words,
    names_protocol,
    only_this_rule,
    rule_in,
    shown_places,
    with_protocol,
    without_part,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.ruleset.error_reasons import Explanation

_NOT_TRIED = frozenset(
    {"undeclared-chain", "chain-loop", "jumps-too-deep", "too-large", "unknown-set", "set-of-other-family"}
    | {"unresolvable-name"}
)
"""Refusals that depend on more than the rule, or that name their reason."""

_BY_THE_KERNEL = frozenset({"refused-by-kernel", "missing-extension"})
_KERNEL_LINE = re.compile(r"(?:x_tables|xt_[A-Za-z0-9_]+|ipt_[A-Z]+|ip6t_[A-Z]+|ip6?_tables): ")
_MOST_RECORDS = 100
_MOST_EXPLAINED = 8
"""Refusals by the kernel that are tried in one ruleset: each takes up to 30 loads."""


@dataclass(slots=True)
class Trials:
    """Trials in a namespace. ``refuses`` says whether the kernel there refuses a ruleset, of either family."""

    refuses: Callable[[Ruleset], bool]
    other: Ruleset | None = None
    """The ruleset of the other family, to see whether a rule is meant for both."""
    left: int = _MOST_EXPLAINED

    def explained(self, family: Family, table: Table, chain: str, text: str, known: Explanation) -> Explanation:
        """The explanation of a refusal, with the reason if a variant of the rule shows it; else as it was."""
        if known.code in _NOT_TRIED:
            return known
        if not self.refuses(only_this_rule(family, table, chain, text)):
            return known  # It is refused because of other rules.
        asked = known.code in _BY_THE_KERNEL and self.left > 0
        self.left -= asked
        found = None
        if asked:
            found = self._by_protocol(family, table, chain, text, known)
        found = found or self._by_family(family, table, chain, text, known)
        if not asked:
            return found or known
        found = found or self._by_extension(family, table, chain, text, known)
        return self._with_line_of_log(found, only_this_rule(family, table, chain, text))

    def _by_family(self, family: Family, table: Table, chain: str, text: str, known: Explanation) -> Explanation | None:
        """The explanation if the other family takes the rule."""
        (other,) = (one for one in FAMILIES if one is not family)
        if self.refuses(only_this_rule(other, table, chain, text)):
            return None
        message = f"IPv{other.number} takes this rule, IPv{family.number} does not"
        hint = f"write -{other.number} before it"
        if not self._is_for_both(table, chain, text):
            hint = f"if it is for IPv{other.number}, write it for that family"
        return replace(known, message=message, hint=hint)

    def _is_for_both(self, table: Table, chain: str, text: str) -> bool:
        if self.other is None or table.name not in self.other.tables:
            return False
        known = self.other.tables[table.name].chains.get(chain)
        return known is not None and any(rule.text == text for rule in known.rules)

    def _by_protocol(
        self, family: Family, table: Table, chain: str, text: str, known: Explanation
    ) -> Explanation | None:
        """The explanation if the rule loads with a protocol."""
        if names_protocol(text):
            return None
        taken = [
            f"-p {protocol}"
            for protocol in PROTOCOLS
            if not self.refuses(only_this_rule(family, table, chain, with_protocol(text, protocol)))
        ]
        if not taken:
            return None
        subject = self._culprit(family, table, chain, text)
        name = "this rule"
        if subject is not None:
            name = str(subject)
        needed = listed_words(taken, "or")
        return replace(known, message=f"{name} needs a protocol", hint=f"it needs {needed}: write it before {name}")

    def _by_extension(self, family: Family, table: Table, chain: str, text: str, known: Explanation) -> Explanation:
        """The explanation that names the extension that is refused, and the chains in which the rule loads."""
        culprit = self._culprit(family, table, chain, text)
        if culprit is None:
            return known
        places = [place for place in PLACES if not self.refuses(rule_in(family, place, _alone(culprit, text)))]
        if Place(table.name, chain) in places:
            return known
        if places:
            message = f"the kernel refuses {culprit} in chain {chain} of table {table.name}"
            return replace(known, message=message, hint=f"{culprit} works in {shown_places(places)}")
        if "tcp-reset" in text or known.code == "missing-extension":
            return known
        message = f"the kernel refuses {culprit} with these options"
        return replace(known, message=message, hint=f"see {culprit.name} in iptables-extensions(8)")

    def _culprit(self, family: Family, table: Table, chain: str, text: str) -> Part | None:
        """The one match or target without which the rule loads."""
        for part in extensions_of(text):
            if not self.refuses(only_this_rule(family, table, chain, without_part(text, part))):
                return part
        return None

    def _with_line_of_log(self, found: Explanation, ruleset: Ruleset) -> Explanation:
        """The explanation with the kernel's line about the refusal, if there is one and the log can be read."""
        try:
            with KernelLog(start=Start.END) as log:
                self.refuses(ruleset)
                records = log.read_available(_MOST_RECORDS)
        except (KernelLogError, OSError):
            return found
        for record in records:
            if isinstance(record, Record) and _KERNEL_LINE.match(record.text):
                return replace(found, message=f'{found.message}; the kernel log says "{record.text}"')
        return found


def _alone(part: Part, text: str) -> str:
    """The rule with its protocol and this extension, to try it in another chain."""
    kept = [text]
    for other in extensions_of(text):
        if other != part:
            kept.append(without_part(kept[-1], other))
    return kept[-1]
