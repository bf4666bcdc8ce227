"""What holds for every plan: it leads from any live ruleset to the wanted one, and touches nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, note, settings

from fwguardd.ruleset.after_plan import after_plan
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.diff import changes, compare
from fwguardd.ruleset.model import BUILTIN_CHAINS, Chain, Counters, Origin, Rule, Ruleset, Table
from fwguardd.ruleset.plan import make_plan
from fwguardd.ruleset.preserve import STRICT, Preserve, own_part
from tests.property.restore_simulator import EDITS, planned, restore
from tests.property.rule_strategies import PRESERVED, live_and_wanted
from tests.scale import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PRESERVE = Preserve.from_patterns(["DOCKER*", "f2b-*", "KUBE-*"])
modest = settings(max_examples=examples(60))


def carried_out(live: Ruleset, wanted: Ruleset, preserve: Preserve, edit: str = "by text") -> Ruleset:
    """The live ruleset after all texts of the plan were loaded."""
    for text in planned(live, wanted, preserve, edit):
        live = restore(live, text)
    return live


def with_counters(rules: Sequence[Rule]) -> list[tuple[str, Counters]]:
    """Rules as they can be compared with their counters."""
    return [(rule.text, rule.counters) for rule in rules]


def in_every_way(live: Ruleset, wanted: Ruleset) -> Iterator[Ruleset]:
    """The rulesets that the plans of all ways lead to. One pair of rulesets is used for all of them: to make a pair
    takes ten times as long as a plan."""
    for edit in EDITS:
        note(edit)
        yield carried_out(live, wanted, PRESERVE, edit)


@modest
@given(live_and_wanted())
def test_a_plan_leads_to_exactly_what_is_wanted(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """After the plan our part of each wanted table is the wanted table; tables that are not wanted are as they were."""
    live, wanted = rulesets
    for final in in_every_way(live, wanted):
        assert compare(wanted, own_part(final, PRESERVE)) == ()
        for name, table in live.tables.items():
            if name not in wanted.tables:
                assert final.tables[name] is table


@modest
@given(live_and_wanted())
def test_a_plan_without_preserved_chains_leaves_nothing_of_other_programs(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """With strict ownership the wanted tables are all there is."""
    live, wanted = rulesets
    assert compare(wanted, carried_out(live, wanted, STRICT)) == ()


def with_origins(ruleset: Ruleset) -> Ruleset:
    """The ruleset with an origin for each rule, its number."""
    number = 0
    tables: dict[str, Table] = {}
    for table in ruleset.tables.values():
        chains: dict[str, Chain] = {}
        for chain in table.chains.values():
            rules = tuple(replace(rule, origin=Origin("a.rules", number + n)) for n, rule in enumerate(chain.rules, 1))
            number += len(rules)
            chains[chain.name] = replace(chain, rules=rules)
        tables[table.name] = Table(table.name, chains)
    return Ruleset(ruleset.family, tables)


@modest
@given(live_and_wanted())
def test_what_a_plan_leads_to_is_known_before(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """The ruleset after a plan is known without loading it, with the origin of each wanted rule."""
    live, wanted = rulesets[0], with_origins(rulesets[1])
    known = after_plan(live, make_plan(live, own_part(live, PRESERVE, wanted), wanted), wanted)
    loaded = carried_out(live, wanted, PRESERVE)
    assert known.tables.keys() >= loaded.tables.keys()
    for table, chain in known.chains():
        assert loaded.tables[table.name].chains[chain.name] == chain
    origins = {rule.origin for _, chain in known.chains() for rule in chain.rules}
    assert origins >= {rule.origin for _, chain in wanted.chains() for rule in chain.rules}


def keeps(rule: Rule, table: Table, chain: Chain) -> bool:
    """Whether a rule belongs to another program."""
    return PRESERVE.keeps_rule(rule, table.name, chain.name)


@modest
@given(live_and_wanted())
def test_a_plan_changes_nothing_of_other_programs(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """Preserved chains keep their rules and counters; rules of other programs in our chains keep order and counters."""
    live, wanted = rulesets
    for final in in_every_way(live, wanted):
        leaves_other_programs_alone(live, final)


def leaves_other_programs_alone(live: Ruleset, final: Ruleset) -> None:
    """Raise AssertionError where a plan that led from the one to the other changed what is not ours."""
    for table, chain in live.chains():
        after = final.tables[table.name].chains.get(chain.name)
        if chain.name in PRESERVED:
            assert after is not None and with_counters(after.rules) == with_counters(chain.rules)
        elif after is not None:
            theirs = [rule for rule in chain.rules if keeps(rule, table, chain)]
            assert with_counters([r for r in after.rules if keeps(r, table, chain)]) == with_counters(theirs)
            if theirs and keeps(chain.rules[0], table, chain):
                assert after.rules[0] == chain.rules[0], "a rule of another program at the head stays at the head"
            if theirs and keeps(chain.rules[-1], table, chain) and len(theirs) < len(chain.rules):
                assert after.rules[-1] == chain.rules[-1], "a rule of another program behind all of ours stays there"


@modest
@given(live_and_wanted())
def test_rules_that_stay_keep_their_counters(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """A rule that is live and wanted has afterwards the counters that it had, also where it moved."""
    live, wanted = rulesets
    for final in in_every_way(live, wanted):
        keeps_counters(live, wanted, final)


def keeps_counters(live: Ruleset, wanted: Ruleset, final: Ruleset) -> None:
    """Raise AssertionError where a rule that stayed lost its counters on the way to the final ruleset."""
    for table, chain in wanted.chains():
        before = live.tables.get(table.name, Table("", {})).chains.get(chain.name, Chain("", None))
        after = final.tables[table.name].chains[chain.name]
        if chain.policy is not None and before.policy == chain.policy:
            assert after.counters == before.counters
        had = Counter(with_counters(before.rules))
        has = Counter(with_counters(after.rules))
        for text, wanted_times in Counter(rule.text for rule in chain.rules).items():
            kept = sum(((had & has)[key] for key in had if key[0] == text), 0)
            assert kept >= min(wanted_times, sum(had[key] for key in had if key[0] == text))


@modest
@given(live_and_wanted())
def test_nothing_is_planned_where_all_is_as_wanted(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """After a plan was carried out there is no further change, with or without chains of other programs."""
    live, wanted = rulesets
    final = carried_out(live, wanted, PRESERVE)
    assert planned(final, wanted, PRESERVE) == ()
    assert planned(own_part(final, PRESERVE), wanted, STRICT) == ()
    assert planned(live, own_part(live, PRESERVE), PRESERVE) == ()


@modest
@given(live_and_wanted())
def test_the_way_there_and_back_again(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """What a plan did, the plan for the rollback undoes: our part is as it was before."""
    live, wanted = rulesets
    final = carried_out(live, wanted, PRESERVE)
    own = {live.family: own_part(live, PRESERVE)}
    earlier = Canonical.from_kernel(own, {live.family: wanted}).rulesets[live.family]
    assert compare(earlier, own_part(carried_out(final, earlier, PRESERVE), PRESERVE)) == ()


@modest
@given(live_and_wanted())
def test_a_difference_is_reported_exactly_where_there_is_one(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """Equal rulesets have no difference; and the rules reported as missing and added turn one into the other."""
    before, after = rulesets
    before = own_part(before, PRESERVE)
    assert compare(after, after) == ()
    for table, chain in after.chains():
        if chain.name not in BUILTIN_CHAINS[table.name]:
            continue
        here = Counter(
            rule.text for rule in before.tables.get(table.name, Table("", {})).chains.get(chain.name, chain).rules
        )
        if table.name not in before.tables or chain.name not in before.tables[table.name].chains:
            here = Counter()
        there = Counter(rule.text for rule in chain.rules)
        reported = [d for d in changes(before, after) if (d.table, d.chain) == (table.name, chain.name)]
        assert Counter(d.text for d in reported if d.kind.value == "missing") in (there - here, here - there)
        assert Counter(d.text for d in reported if d.kind.value == "added") in (there - here, here - there)
