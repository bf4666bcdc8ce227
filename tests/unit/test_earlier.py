"""Which revision a rollback goes to, on a real store."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce import answering
from fwguardd.enforce.earlier import earlier_rules
from fwguardd.enforce.file_changes import changes_between, digests_of, with_owners
from fwguardd.enforce.record import in_force_of
from fwguardd.enforce.state import EMERGENCY_CAUSE
from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.model import Chain, Family, Rule, RuleFile, Ruleset, Table
from fwguardd.store.model import FileChange, FileChangeKind, Kept, Revision, RevisionKind
from fwguardd.store.revisions import RevisionStore

if TYPE_CHECKING:
    from pathlib import Path

# A letter stands for a ruleset: o for an open revision, e for the emergency set, n for one without rules, a digit for a
# rollback to that revision.
HISTORIES = [
    ("A", None), ("AB", 1), ("ABC", 2), ("Ao", 1), ("AoA", 1), ("ABoB", 1), ("ABo", 2), ("ABCo", 3),
    ("AB1", None), ("ABC2", 1), ("ABC21", None), ("ABC2D", 4), ("ABC2D4", 1), ("AeB", 1), ("ne", None), ("nAB", 2),
    ("AA", 1), ("ABA", 2),
]  # fmt: skip


def revision(number: int, letter: str, earlier: list[Revision]) -> Revision:
    """A revision of a history."""
    if letter.isdigit():
        return replace(earlier[int(letter) - 1], number=number, restored=int(letter), cause=f"rollback to {letter}")
    rules: tuple[Rule, ...] = (Rule(f"-s 192.0.2.{ord(letter)}/32 -j DROP"),)
    if letter in "on":
        rules = ()
    table = Table("filter", {"INPUT": Chain("INPUT", "ACCEPT", rules)})
    cause = {"e": EMERGENCY_CAUSE}.get(letter, "change")
    kind = {"o": RevisionKind.OPEN}.get(letter, RevisionKind.RULES)
    rulesets = {family: Ruleset(family, {"filter": table}) for family in Family}
    return Revision(number, 1.0, cause, "", Backend.NFT, "1.8.9", "6.1", f"{number}", (), rulesets, kind)


@pytest.mark.parametrize(("history", "target"), HISTORIES)
def test_the_target_of_a_rollback(tmp_path: Path, history: str, target: int | None) -> None:
    """The newest earlier revision with other rules than those in force, behind the one that was restored last; else the
    newest with the same. Never an open one, one without rules, or the emergency set."""
    store, made = RevisionStore(tmp_path / "state"), list[Revision]()
    for number, letter in enumerate(history, 1):
        made.append(revision(number, letter, made))
        store.record(made[-1])
    reading = earlier_rules(RevisionStore(tmp_path / "state"), in_force_of(made[-1]))
    found = None
    if isinstance(reading, Kept):
        found = reading.revision.number
    assert found == target


def test_changed_files_and_their_owners(tmp_path: Path) -> None:
    """Files that were added, changed or removed, each with the owner that it has now."""
    one, two, three = (str(tmp_path / name) for name in ("1.rules", "2.rules", "3.rules"))
    (tmp_path / "2.rules").touch()
    before = digests_of([RuleFile(one, b"a"), RuleFile(two, b"b"), RuleFile("same", b"c")])
    after = digests_of([RuleFile(two, b"B"), RuleFile(three, b"d"), RuleFile("same", b"c")])
    owner = (tmp_path / "2.rules").owner()
    assert with_owners(changes_between(before, after)) == (
        FileChange(one, FileChangeKind.REMOVED),
        FileChange(two, FileChangeKind.CHANGED, owner),
        FileChange(three, FileChangeKind.ADDED),
    )


def test_owners_in_a_directory_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that is recorded does not wait for the rules directory: the owners of its files stay unknown."""
    monkeypatch.setitem(answering._unanswered, str(tmp_path), Future())
    changes = changes_between((), digests_of([RuleFile(str(tmp_path / "1.rules"), b"a")]))
    (tmp_path / "1.rules").touch()
    assert with_owners(changes) == changes
    assert with_owners(()) == ()
