"""What a check has found in a chain before is found again, and nothing else."""

from __future__ import annotations

import random

from fwguardd.ruleset.checked_texts import CheckedTexts
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table
from tests.counting import steps

PLACE = (Family.IPV4, "filter", "INPUT")


def is_odd(text: str) -> bool:
    """Stands for a check."""
    return int(text) % 2 == 1


def rules_of(numbers: list[int]) -> tuple[Rule, ...]:
    """Rules of a chain."""
    return tuple(Rule(str(number)) for number in numbers)


def test_what_was_found_before_changes_no_answer() -> None:
    """After any edits of the rules in the kernel and of those to be loaded, with copies, and the same again."""
    chance = random.Random(11)
    live, wanted, numbers = CheckedTexts(), CheckedTexts(), list(range(5))
    for _ in range(400):
        numbers.insert(chance.randrange(len(numbers) + 1), chance.randrange(12))
        if len(numbers) > 9:
            del numbers[chance.randrange(3) : chance.randrange(4)]
        rules = rules_of(numbers)
        mine, others = chance.choice(((live, wanted), (wanted, live)))
        for _ in range(chance.randrange(1, 3)):
            found = mine.found(PLACE, rules, is_odd, others)
            assert found == {str(number) for number in numbers if number % 2}


def test_only_new_rules_are_checked() -> None:
    """Among many rules the check is called for the one that is new, and the same rules again take a few steps."""
    checked: list[str] = []

    def check(text: str) -> bool:
        checked.append(text)
        return is_odd(text)

    live, wanted, numbers = CheckedTexts(), CheckedTexts(), list(range(0, 4000, 2))
    wanted.found(PLACE, rules_of(numbers), check, live)
    checked.clear()
    assert live.found(PLACE, rules_of(numbers), check, wanted) == frozenset()
    assert checked == []
    numbers[1000:1001] = [5, 8]
    rules = rules_of(numbers)
    assert live.found(PLACE, rules, check, wanted) == {"5"}
    assert checked == ["5"]
    assert steps(lambda: live.found(PLACE, rules, check, wanted)) < 20


def test_chains_that_come_and_go_are_forgotten() -> None:
    """A program that makes a chain of another name each time does not fill the memory."""
    live, wanted = CheckedTexts(), CheckedTexts()
    for number in range(5000):
        live.found((Family.IPV4, "filter", str(number)), rules_of([1]), is_odd, wanted)
    assert len(live.chains) <= 4096


def test_chains_that_a_ruleset_does_not_have_are_forgotten() -> None:
    """With all their rules: those of chains and tables that are gone, but not of another family."""
    live, wanted = CheckedTexts(), CheckedTexts()
    places = [(Family.IPV4, "filter", "INPUT"), (Family.IPV4, "filter", "OLD"), (Family.IPV4, "nat", "OUTPUT")]
    for place in (*places, (Family.IPV6, "filter", "OLD")):
        live.found(place, rules_of([1]), is_odd, wanted)
    live.forget_all_but(Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": Chain("INPUT", "DROP")})}))
    assert [*live.chains] == [places[0], (Family.IPV6, "filter", "OLD")]
