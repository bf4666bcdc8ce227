"""What looks at the live tables have shown, and whether they still show it.

The kernel counts the commits to nf_tables: the generation. A look that no commit fell into, at a generation that is
still the current one, shows what the kernel holds now, but for counters, and iptables-save need not run again. Where
each commit since has only removed rules whose handles are known, or set policies, what it holds now is known too
(`fwguardd.kernel.rule_notices`). The next look is compared with that. Tables of legacy iptables have no such number,
and tables that no packet traverses (dormant ones) are always read.

iptables prints the same rules in other words after an upgrade, so a look counts only while the programs are the same.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import field, replace
from functools import partial
from itertools import filterfalse
from typing import TYPE_CHECKING

from fwguardd.kernel.generations import GenerationNoticesError, current_generation
from fwguardd.kernel.program_stamp import program_stamp
from fwguardd.kernel.rule_bytes import uncounted
from fwguardd.kernel.rule_counters import MOST_RULES, counters_of
from fwguardd.kernel.rule_handles import forget, gone_texts, learn, patched, shows_all
from fwguardd.kernel.rule_notices import Place, RuleNotices, concerns
from fwguardd.ruleset.chain_edits import with_edit
from fwguardd.ruleset.model import FAMILIES, Ruleset, Table
from fwguardd.ruleset.save_format import read_saved
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fwguardd.kernel.program_stamp import Stamp
    from fwguardd.kernel.rule_handles import Handles
    from fwguardd.kernel.rule_notices import Change
    from fwguardd.ruleset.chain_edits import ChainEdit
    from fwguardd.ruleset.model import Counters, Family
    from fwguardd.ruleset.operations import LiveRule
    from fwguardd.ruleset.save_format import Saved


BACKEND = "nft"
"""The backend that counts its commits."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a look was taken: the generation of nf_tables, and the programs of iptables."""

    generation: int
    programs: Stamp

    @property
    def next_generation(self) -> int:
        """The number that the next commit begins: 0 is none (nf_tables_commit() in net/netfilter/nf_tables_api.c)."""
        return (self.generation + 1) % (1 << 32) or 1


def present(backend: str) -> Moment | None:
    """The present moment; None where the backend ("nft", "legacy") has no generations, or they cannot be read."""
    if backend != BACKEND:
        return None
    try:
        return Moment(current_generation(), program_stamp(backend))
    except (GenerationNoticesError, OSError):
        return None


@dataclass(slots=True)
class LastLooks:
    """The last look at each family, and when it was taken; no moment where a commit fell into it."""

    looks: dict[Family, Saved] = field(default_factory=dict)
    moments: dict[Family, Moment] = field(default_factory=dict)
    written: set[Family] = field(default_factory=set)
    """The families that were written here since: they may show less, because that is wanted."""
    like: Mapping[Family, Ruleset] = field(default_factory=dict)
    """Rulesets whose texts equal rules of the next look share."""
    notices: RuleNotices | None = None
    handles: Handles = field(default_factory=dict)
    followed: set[Family] = field(default_factory=set)
    """The families whose last look is known from what the kernel said since, and was not compared with it yet."""
    gone: dict[Family, Mapping[str, bytes]] = field(default_factory=dict)
    """The texts of the rules that others have removed since the last look, and the expressions that each was made of:
    a look at the same rules by another version of iptables may have other texts."""
    wrong: list[str] = field(default_factory=list)
    """What a look has shown to be otherwise than it was known from notices: a defect."""

    @property
    def hidden(self) -> frozenset[tuple[Family, str]]:
        """The tables that iptables could not show."""
        return frozenset((family, name) for family, saved in self.looks.items() for name in saved.hidden)

    @property
    def shown(self) -> Mapping[Family, Ruleset]:
        """What iptables showed, of the families that were not written since."""
        return {family: saved.shown for family, saved in self.looks.items() if family not in self.written}

    def read(self, family: Family, text: str) -> Saved:
        """What iptables-save printed of a family. What was shown of it last, or is in memory else, is not held twice.
        Raises as `read_saved` does."""
        before: Ruleset | None = None
        if family in self.looks:
            before = self.looks[family].shown
        return read_saved(family, text, before, self.like.get(family))

    def is_doubtful(self, found: Saved) -> bool:
        """Whether a look may lack rules: it is the first one of its family, or it shows less than the last."""
        family = found.shown.family
        last = self.looks.get(family)
        if last is None:
            return True
        return family not in self.written and found.shows_less_than(last.shown)

    def to_take_again(self, saved: Mapping[Family, Saved], now: Moment | None) -> tuple[Family, ...]:
        """The families that are to be looked at again: the look is doubtful, and nf_tables does not list as many rules
        in each chain."""
        doubtful = list(filter(self.is_doubtful, saved.values()))
        if now is not None:
            with suppress(OSError):
                doubtful = list(filterfalse(shows_all, doubtful))
        return tuple(found.shown.family for found in doubtful)

    def keep(self, saved: Mapping[Family, Saved], began: Moment | None, ended: Moment | None) -> None:
        """Keep a look that began and ended at these moments; None where they are not known."""
        if began != ended:
            began = None
        if began is not None:
            self.catch_up(began)
        self.like = {}
        for family, found in saved.items():
            if family in self.followed and began == self.moments.get(family):
                self._compare(self.looks[family], found)
            self._keep(found, began)

    def _keep(self, found: Saved, taken: Moment | None) -> None:
        family = found.shown.family
        self.looks[family] = found
        self.written.discard(family)
        self.followed.discard(family)
        self.gone.pop(family, None)
        self.moments.pop(family, None)
        if taken is not None and not found.dormant:
            self.moments[family] = taken

    def _compare(self, known: Saved, found: Saved) -> None:
        """Compare what was known from notices with what a look has shown at the same generation."""
        if (known.shown, known.hidden) != (found.shown, found.hidden):
            self.handles.clear()
            self.wrong.append(f"the {found.shown.family.value} tables are otherwise than nf_tables has said")

    def at(self, families: Collection[Family], now: Moment | None) -> Mapping[Family, Saved] | None:
        """What a look at these families would show at this moment; None where that is not known."""
        if now is None:
            return None
        self.catch_up(now)
        known: dict[Family, Saved] = {}
        for family in families:
            if self.moments.get(family) != now:
                return None
            known[family] = self.looks[family]
        return known

    def recounted(
        self, rules: Mapping[Family, Sequence[LiveRule]], now: Moment | None
    ) -> Mapping[Family, Saved] | None:
        """What `at` says of these families, with what these rules have counted by now; None where that is not known,
        or they are many."""
        known = self.at(tuple(rules), now)
        if known is None or sum(map(len, rules.values())) > MOST_RULES:
            return None
        handles, recounted = dict(self.handles), dict(known)
        try:
            for family, saved in known.items():
                learn(saved.shown, handles)
                recounted[family] = _recounted(saved, rules[family], handles)
        except (LookupError, OSError):
            return None
        if now != present(BACKEND):
            return None
        return recounted

    def expressions(self, family: Family, text: str) -> bytes:
        """What a rule is made of that others have removed; b"" where that is not known, or is left to iptables."""
        return uncounted(self.gone.get(family, {}).get(text, b""))

    def catch_up(self, now: Moment) -> None:
        """Follow what was changed until this moment, as far as that is known."""
        if self.notices is None or self.notices.at == now.generation:
            return
        before = replace(now, generation=self.notices.at)
        try:
            changes = self.notices.changes_until(now.generation)
        except (GenerationNoticesError, OSError):
            self.stop_following()
        else:
            self._take(changes, before, now)

    def _take(self, changes: Sequence[Change] | None, before: Moment, now: Moment) -> None:
        """Take in all changes between two moments; None if they are not known."""
        if changes is None:
            self.handles.clear()
            return
        for family in FAMILIES:
            of_family = list(filter(partial(concerns, family), changes))
            if self.moments.get(family) == before:
                self._follow(family, of_family, now)
            else:
                forget(of_family, self.handles)

    def _follow(self, family: Family, changes: Sequence[Change], now: Moment) -> None:
        before = dict(self.handles)
        saved = patched(self.looks[family], changes, self.handles)
        if saved is None:
            forget(changes, self.handles)
            return
        if changes:
            self.gone[family] = gone_texts(self.looks[family], changes, before)
        self.looks[family], self.moments[family] = saved, now
        if changes:
            self.followed.add(family)

    def edited(self, edits: Mapping[Place, ChainEdit], handles: Handles, now: Moment) -> None:
        """Keep what the kernel holds after edits that were all of the commit that followed this moment, with the
        handles that the rules of the chains have then. What was known of other chains at this moment holds on."""
        after = replace(now, generation=now.next_generation)
        none_missed = self._pass_over(after)
        for place, edit in edits.items():
            saved = self.looks[place.family]
            self.looks[place.family] = replace(saved, shown=with_edit(saved.shown, edit))
            self.followed.add(place.family)
        for family, moment in self.moments.items():
            if moment == now:
                self.moments[family] = after
        if none_missed:
            self.handles.update(handles)

    def _pass_over(self, after: Moment) -> bool:
        """The notices until this moment are about what is known. Whether all later ones will be read: without that a
        change of the next moment may be missed, and so no handle is known."""
        try:
            if self.notices is not None and self.notices.changes_until(after.generation) is not None:
                return True
            self.handles.clear()
        except (GenerationNoticesError, OSError):
            self.stop_following()
        return False

    def moved_on(self, families: Iterable[Family], now: Moment) -> bool:
        """Whether what these families held last was known for an earlier moment than this."""
        return any(self.moments.get(family, now) != now for family in families)

    def learn(self, now: Moment | None) -> None:
        """Learn which handle each rule has that the last look has shown, so that the next changes can be followed."""
        if now is None:
            return
        try:
            self._learn(now)
        except (GenerationNoticesError, OSError):
            self.stop_following()

    def _learn(self, now: Moment) -> None:
        """The same. Raises GenerationNoticesError and OSError."""
        if self.notices is None:
            self.notices = RuleNotices()
        self.catch_up(now)
        for family, moment in self.moments.items():
            if moment == now:
                learn(self.looks[family].shown, self.handles)
        if current_generation() != now.generation:
            self.handles.clear()

    def stop_following(self) -> None:
        """Know only what looks have shown."""
        self.handles.clear()
        if self.notices is not None:
            self.notices.close()
        self.notices = None


def _recounted(saved: Saved, rules: Sequence[LiveRule], handles: Handles) -> Saved:
    """A look with what these rules of it have counted by now. Raises LookupError and OSError."""
    asked = map(partial(_place_and_handle, saved.shown, handles), rules)
    for rule, counters in zip(rules, counters_of(asked), strict=True):
        saved = replace(saved, shown=_with_counters(saved.shown, rule, counters))
    return saved


def _place_and_handle(shown: Ruleset, handles: Handles, rule: LiveRule) -> tuple[Place, int]:
    """What the kernel calls a rule. Raises LookupError where that is not known."""
    place = Place(shown.family, rule.table, rule.chain)
    numbers = handles[place]
    if len(numbers) != len(shown.tables[rule.table].chains[rule.chain].rules):
        raise LookupError
    return place, numbers[rule.number]


def _with_counters(shown: Ruleset, rule: LiveRule, counters: Counters) -> Ruleset:
    tables = dict(shown.tables)
    chain = tables[rule.table].chains[rule.chain]
    rules = (
        *chain.rules[: rule.number],
        replace(chain.rules[rule.number], counters=counters),
        *chain.rules[rule.number + 1 :],
    )
    tables[rule.table] = Table(rule.table, {**tables[rule.table].chains, rule.chain: replace(chain, rules=rules)})
    return Ruleset(shown.family, tables)
