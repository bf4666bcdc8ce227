"""Why the kernel refuses a rule: found by loading variants of it in the temporary namespace.

The kernel answers EINVAL for a rule that lacks a protocol, that stands in the wrong chain or table, and that the other
family alone has. So the rule is tried alone: in the other family, with a protocol, without each of its extensions, and
in the other chains and tables. The kernel's log has a line about some refusals (xt_TPROXY, xt_CT and others).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.kernel.kmsg import KernelLog, KernelLogError, Reading, Record, Start
from fwguardd.patterns import pattern
from fwguardd.ruleset.model import FAMILIES, Family, Ruleset, Table
from fwguardd.ruleset.rule_variants import (
    FIRST_PACKETS,
    PLACES,
    PROTOCOLS,
    BuiltInChain,
    Part,
    extensions_of,
    jumps_to,
    listed_words,
    protocol_of,
    rule_in,
    shown_places,
    with_protocol,
    with_rule,
    without_part,
)
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fwguardd.ruleset.error_reasons import Explanation

_NOT_TRIED = frozenset(
    {"undeclared-chain", "chain-loop", "jumps-too-deep", "too-large", "unknown-set", "set-of-other-family"}
    | {"unresolvable-name"}
)
"""Refusals that depend on more than the rule, or that name their reason."""

_BY_THE_KERNEL = frozenset({"refused-by-kernel", "missing-extension"})
_KERNEL_LINE = pattern(r"(?:x_tables|xt_[A-Za-z0-9_]+|ipt_[A-Z]+|ip6t_[A-Z]+|ip6?_tables): ")
_MOST_RECORDS = 100
_MOST_EXPLAINED = 8
"""Refusals by the kernel that are tried in one ruleset: each takes up to 30 loads."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """A rule that is refused: ``table`` has the jumps that lead to its chain, and no other rules."""

    family: Family
    table: Table
    chain: str
    text: str

    def ruleset(self, text: str, family: Family | None = None) -> Ruleset:
        """A ruleset with a variant of the rule in its place."""
        return with_rule(family or self.family, self.table, self.chain, text)


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
        refused = _Refused(family, jumps_to(table, chain), chain, text)
        if not self.refuses(refused.ruleset(text)):
            return known  # It is refused because of other rules.
        if known.code not in _BY_THE_KERNEL or not self.left:
            return self._by_family(refused, known) or known
        self.left -= 1
        found = self._by_protocol(refused, known) or self._by_family(refused, known)
        return self._with_line_of_log(found or self._by_extension(refused, known), refused.ruleset(text))

    def _by_family(self, refused: _Refused, known: Explanation) -> Explanation | None:
        """The explanation if the other family takes the rule."""
        (other,) = (one for one in FAMILIES if one is not refused.family)
        if self.refuses(refused.ruleset(refused.text, other)):
            return None
        message = f"IPv{other.number} takes this rule, IPv{refused.family.number} does not"
        hint = f"write -{other.number} before it"
        if not self._is_for_both(refused):
            hint = f"if it is for IPv{other.number}, write it for that family"
        return replace(known, message=message, hint=hint)

    def _is_for_both(self, refused: _Refused) -> bool:
        if self.other is None or refused.table.name not in self.other.tables:
            return False
        known = self.other.tables[refused.table.name].chains.get(refused.chain)
        return known is not None and any(rule.text == refused.text for rule in known.rules)

    def _by_protocol(self, refused: _Refused, known: Explanation) -> Explanation | None:
        """The explanation if the rule loads with a protocol, or with another one."""
        named = protocol_of(refused.text)
        taken = self._protocols_taken(refused, PROTOCOLS) or self._protocols_taken(refused, (FIRST_PACKETS,))
        if not taken:
            return None
        name = str(self._culprit(refused) or "this rule")
        needed = listed_words(taken, "or")
        if named is not None:
            hint = f"it needs {needed} in place of -p {named}"
            return replace(known, message=f"{name} does not work with -p {named}", hint=hint)
        return replace(known, message=f"{name} needs a protocol", hint=f"it needs {needed}: write it before {name}")

    def _protocols_taken(self, refused: _Refused, protocols: Iterable[str]) -> list[str]:
        """The protocols with which the rule loads, each as an option."""
        taken: list[str] = []
        for protocol in protocols:
            variant = with_protocol(refused.text, protocol)
            if variant != refused.text and not self.refuses(refused.ruleset(variant)):
                taken.append(f"-p {protocol}")
        return taken

    def _by_extension(self, refused: _Refused, known: Explanation) -> Explanation:
        """The explanation that names the extension that is refused, and the chains in which the rule loads."""
        culprit = self._culprit(refused)
        if culprit is None:
            return known
        alone = _alone(culprit, refused.text)
        places = self._places_taken(refused.family, alone)
        if BuiltInChain(refused.table.name, refused.chain) in places:
            return known
        if places:
            message = f"the kernel refuses {culprit} in chain {refused.chain} of table {refused.table.name}"
            return replace(known, message=message, hint=f"{culprit} works in {shown_places(places)}")
        if "tcp-reset" in refused.text or known.code == "missing-extension":
            return known
        message = f"the kernel refuses {culprit} with these options"
        return replace(known, message=message, hint=_hint_for_options(culprit))

    def _culprit(self, refused: _Refused) -> Part | None:
        """The one match or target without which the rule loads."""
        for part in extensions_of(refused.text):
            if not self.refuses(refused.ruleset(without_part(refused.text, part))):
                return part
        return None

    def _places_taken(self, family: Family, text: str) -> list[BuiltInChain]:
        """The built-in chains in which a rule loads."""
        return [place for place in PLACES if not self.refuses(rule_in(family, place, text))]

    def _with_line_of_log(self, found: Explanation, ruleset: Ruleset) -> Explanation:
        """The explanation with the kernel's line about the refusal, if there is one and the log can be read."""
        try:
            with KernelLog(start=Start.END) as log:
                self.refuses(ruleset)
                records = log.read_available(_MOST_RECORDS)
        except (KernelLogError, OSError):
            return found
        line = _line_about_rule(records)
        if line is None:
            return found
        return replace(found, message=f'{found.message}; the kernel log says "{line}"')


def _line_about_rule(readings: Iterable[Reading]) -> str | None:
    """The first line with which an extension says why it refuses a rule."""
    for reading in readings:
        if isinstance(reading, Record) and _KERNEL_LINE.match(reading.text):
            return reading.text
    return None


def _hint_for_options(culprit: Part) -> str:
    """What to check where no chain takes an extension. iptables-legacy gives no reason for a missing object."""
    options = RuleView.of(culprit.text)
    if name := options.value("--nfacct-name"):
        return f'check that the nfacct object "{name}" exists: nfacct list'
    if culprit.is_target and (name := options.value("--timeout")):
        return f'check that the timeout policy "{name}" exists and is for this protocol: nfct list timeout'
    if culprit.name == "cgroup" and (name := options.value("--path")):
        return f'check that the control group "{name}" exists, as that of a unit does while the unit runs'
    return f"see {culprit.name} in iptables-extensions(8)"


def _alone(part: Part, text: str) -> str:
    """The rule with its protocol and this extension, to try it in another chain."""
    kept = [text]
    for other in extensions_of(text):
        if other != part:
            kept.append(without_part(kept[-1], other))
    return kept[-1]
