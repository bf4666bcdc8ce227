"""Which rules of the ruleset in force the kernel refuses now, so that a repair can load the rest.

A search among all rules may load each of them many times (`fwguardd.kernel.refusal_search`), and a repair that fails is
tried again and again. So from the second try on, the rules that were refused are rehearsed without the others. They are
searched for among all rules again where that finds none of them refused, or where the rest cannot be loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.kernel.rehearsal import RehearsalRefused
from fwguardd.ruleset.model import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.ruleset.canonical import Canonical

    Rehearse = Callable[[Candidate], Canonical | RehearsalRefused]


class RefusedRules:
    """Searches for refused rules with ``rehearse``, and remembers what it has found of the last revision."""

    def __init__(self, rehearse: Rehearse) -> None:
        self._rehearse = rehearse
        self._revision = 0
        self._refused: RehearsalRefused | None = None
        self._among_known = False

    def of(self, revision: int, canonical: Canonical) -> RehearsalRefused | None:
        """The refused rules of the ruleset of a revision; None if the kernel takes all. Raises NamespaceError."""
        refused = self._known_of(revision, canonical)
        self._among_known = refused is not None
        if refused is not None:
            return refused
        self._revision, self._refused = revision, self._search(canonical)
        return self._refused

    def search_all(self) -> bool:
        """Search among all rules the next time: what was found last is not all. Whether that was less than all."""
        among_known, self._refused, self._among_known = self._among_known, None, False
        return among_known

    def _known_of(self, revision: int, canonical: Canonical) -> RehearsalRefused | None:
        """Those that were refused before and still are; None where that is not known."""
        if self._refused is None or revision != self._revision or not self._refused.rules:
            return None
        return self._search(canonical.with_only(self._refused.rules))

    def _search(self, canonical: Canonical) -> RehearsalRefused | None:
        outcome = self._rehearse(Candidate(canonical.rulesets, accepted_before=True))
        if isinstance(outcome, RehearsalRefused):
            return outcome
        return None
