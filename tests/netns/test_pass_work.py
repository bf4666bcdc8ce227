"""The work that a pass does: rules that are rehearsed, and looks at the kernel, for an edit and for no change at all.

Each short cut has a test of what would make it wrong: a change by another program, and a result that is not right.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce import known_lines
from fwguardd.enforce.context import Done, Failed, Outcome, RecordedHost
from fwguardd.enforce.guard import DIFFERS
from fwguardd.enforce.reconcile import PassRequest
from fwguardd.enforce.record import Cause
from fwguardd.enforce.schedule import Due
from fwguardd.kernel import last_looks, nft_edits
from fwguardd.kernel.iptables import Backend, LiveKernel, find_tool
from fwguardd.kernel.privilege import boot_id, kernel_release
from fwguardd.kernel.rehearsal import RehearsalRefused, Rehearsals
from fwguardd.kernel.rehearsed_rules import RehearsedRules
from fwguardd.kernel.rule_handles import gone_texts
from fwguardd.progress import Progress
from fwguardd.ruleset.model import Family, Ruleset, Table
from fwguardd.ruleset.rehearsal_sample import Sample
from fwguardd.ruleset.rehearsed_lines import canonical_of
from fwguardd.settings import Foreign, Settings
from fwguardd.worker import Worker
from fwguardd.worker_report import Orders

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fwguardd.events import EventKind
    from fwguardd.kernel.rule_bytes import RuleBytes
    from fwguardd.kernel.rule_handles import Handles
    from fwguardd.kernel.rule_notices import Change
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.model import Candidate
    from fwguardd.ruleset.rehearsed_lines import Lines, Rulesets
    from fwguardd.ruleset.save_format import Saved

RULES = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n" + "".join(
    f"-A INPUT -s 192.0.2.{number} -p tcp --dport 80 -j ACCEPT\n" for number in range(1, 60)
)


@dataclass
class Bench:
    """A worker in the thread of the test. ``rehearsed`` has the number of rules of each rehearsal, ``looks`` counts
    looks that run iptables-save."""

    worker: Worker
    orders: Orders
    events: list[tuple[str, str]]
    rehearsed: list[int] = field(default_factory=list)
    looks: int = 0

    def run(self, due: Due = Due.CHANGE) -> Outcome:
        """A pass for this reason."""
        self.rehearsed.clear()
        self.events.clear()
        self.looks = 0
        return self.worker.run_pass(self.orders, PassRequest(Cause(due.value))).outcome

    def check(self) -> list[tuple[str, str]]:
        """The events of the check of what was rehearsed in parts."""
        self.rehearsed.clear()
        self.events.clear()
        self.worker.check_rehearsal(self.orders)
        return list(self.events)

    def reload(self) -> None:
        """A reload, which has to succeed."""
        self.rehearsed.clear()
        self.events.clear()
        self.looks = 0
        assert isinstance(self.worker.reload(self.orders, PassRequest(Cause("reload"))).outcome, Done)

    def write(self, name: str, text: str) -> None:
        """A rule file gets this text."""
        beside = self.orders.settings.rules_dir / ".beside"
        beside.write_text(text)
        beside.rename(self.orders.settings.rules_dir / name)

    @property
    def names(self) -> list[str]:
        """The names of the events of the last pass, without warnings about the rules."""
        return [name for name, _ in self.events if name != "rules.finding"]


@pytest.fixture
def bench(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """RULES in a file are in force, beside a smaller file."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (tmp_path / "run").mkdir()
    settings = Settings(
        rules_dir=rules, state_dir=tmp_path / "state", runtime_dir=tmp_path / "run", foreign=Foreign.REMOVE
    )
    events: list[tuple[str, str]] = []

    def emit(kind: EventKind, message: str, /, **_: Any) -> None:
        events.append((kind.name, message))

    host = RecordedHost(find_tool(Backend(backend)), kernel_release(), boot_id())
    made = Bench(Worker(settings, host, emit, Progress()), Orders(settings), events)
    rehearse, look = Rehearsals.rehearse, LiveKernel.look

    def counted(self: Rehearsals, candidate: Candidate) -> Canonical | RehearsalRefused:
        made.rehearsed.append(sum(ruleset.rule_count for ruleset in candidate.rulesets.values()))
        return rehearse(self, candidate)

    def looked(self: LiveKernel, families: Collection[Family]) -> Mapping[Family, Saved]:
        made.looks += 1
        return look(self, families)

    monkeypatch.setattr(nft_edits, "MANY", 60)
    monkeypatch.setattr(Rehearsals, "rehearse", counted)
    monkeypatch.setattr(LiveKernel, "look", looked)
    made.write("10-many.rules", RULES)
    made.write("20-few.rules", "-A INPUT -p tcp --dport 22 -j ACCEPT\n")
    assert isinstance(made.run(Due.CHANGE), Done)
    yield made
    made.worker.close(made.orders)


nft_only = pytest.mark.parametrize("backend", ["nft"], indirect=True)


def test_an_edit_costs_what_it_changes(bench: Bench, saved: Callable[[], dict[str, list[str]]]) -> None:
    """Of a file with one rule more, one rule is rehearsed, in each family. nf_tables answers to the load with what it
    has done, legacy is read before it and after it. Where a rule goes, none is rehearsed."""
    bench.write("20-few.rules", "-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp --dport 25 -j ACCEPT\n")
    assert isinstance(bench.run(), Done)
    assert bench.names == ["rules.applied"]
    assert bench.rehearsed == [2]
    # On a slow machine the guard looks during the validation, where it has to read the kernel for that.
    least, most = {"nft": (0, 0), "legacy": (1, 3)}[bench.worker._kernel.backend.value]
    assert least <= bench.looks <= most
    bench.write("20-few.rules", "-A INPUT -p tcp --dport 25 -j ACCEPT\n")
    assert isinstance(bench.run(), Done)
    assert bench.rehearsed == []
    assert "-A INPUT -p tcp -m tcp --dport 25 -j ACCEPT" in saved()["ipv6"]
    assert "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT" not in saved()["ipv4"]


@nft_only
def test_iptables_has_the_last_word_about_an_edit(bench: Bench, saved: Callable[[], dict[str, list[str]]]) -> None:
    """The pass that follows a write reads the tables once, and compares what nf_tables had said of the edit with that.
    Another rule than was wanted is a defect, and drift, which iptables repairs: edits over netlink are given up."""
    bench.write("20-few.rules", "-A INPUT -p tcp --dport 25 -j ACCEPT\n")
    assert isinstance(bench.run(), Done)
    for looks in (1, 0):
        assert isinstance(bench.run(Due.AGAIN), Done)
        assert (bench.looks, bench.names) == (looks, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RehearsedRules, "keep", with_another_text)
        bench.write("20-few.rules", "-A INPUT -p tcp --dport 26 -j ACCEPT\n-A INPUT -p tcp --dport 27 -j ACCEPT\n")
        assert isinstance(bench.run(), Done)
    assert (bench.looks, bench.names) == (0, ["rules.applied"])
    assert saved()["ipv4"].count("-A INPUT -p tcp -m tcp --dport 27 -j ACCEPT") == 2
    assert isinstance(bench.run(Due.AGAIN), Done)
    assert bench.names == ["drift.detected", "drift.repaired", *["daemon.fault"] * 2]
    assert saved()["ipv4"].count("-A INPUT -p tcp -m tcp --dport 27 -j ACCEPT") == 1


def with_another_text(self: RehearsedRules, saved: Ruleset, rules: Sequence[RuleBytes]) -> None:
    """Take each rule for the one with the expressions of the last."""
    for _, chain in saved.chains():
        for rule in chain.rules:
            self._expressions[saved.family, rule.text] = rules[-1].expressions


@nft_only
def test_a_pass_that_changes_nothing_reads_nothing_of_the_kernel(bench: Bench) -> None:
    """After a touch the rules are those in force, and nobody has written since they were seen: no program runs. The
    timer reads the kernel all the same."""
    os.utime(bench.orders.settings.rules_dir / "10-many.rules")
    assert isinstance(bench.run(), Done)
    assert (bench.looks, bench.rehearsed, bench.names) == (0, [], [])
    assert isinstance(bench.run(Due.TIMER), Done)
    assert bench.looks == 1


@nft_only
def test_a_reload_of_the_same_files_runs_nothing(bench: Bench) -> None:
    """Where no rule names anything outside of the files, nothing can have changed; a user is looked up again."""
    bench.write("20-few.rules", ":WEB -\n-A INPUT -p tcp --dport 22 -j WEB\n")
    assert isinstance(bench.run(), Done)
    bench.reload()
    assert (bench.looks, bench.rehearsed, bench.names) == (0, [], ["rules.unchanged"])
    bench.write("20-few.rules", "-A OUTPUT -m owner --uid-owner root -j ACCEPT\n")
    assert isinstance(bench.run(), Done)
    bench.reload()
    assert (bench.looks, bench.rehearsed[0] > 60) == (0, True)


@pytest.mark.parametrize("edit", [False, True])
def test_a_change_right_before_a_pass_is_found(
    bench: Bench,
    edit: bool,  # noqa: FBT001
    saved: Callable[[], dict[str, list[str]]],
) -> None:
    """What another program has changed since the kernel was read last is drift, in a pass for the files too, whether
    they have changed or not."""
    before = saved()
    backend = bench.worker._kernel.backend.value
    subprocess.run([f"iptables-{backend}", "-D", "INPUT", "-i", "lo", "-j", "ACCEPT"], check=True)
    if edit:
        bench.write("20-few.rules", "# nothing any more\n")
        before = {name: [line for line in lines if "--dport 22" not in line] for name, lines in before.items()}
    assert isinstance(bench.run(), Done)
    assert "drift.detected" in bench.names
    assert saved() == before


def changed(old: str, new: str) -> Callable[[Rulesets, Lines], Rulesets]:
    """What puts rules together wrongly: with other texts."""

    def wrong(wanted: Rulesets, lines: Lines) -> Rulesets:
        right = canonical_of(wanted, lines)
        return {family: _with_text(ruleset, old, new) for family, ruleset in right.items()}

    return wrong


def _with_text(ruleset: Ruleset, old: str, new: str) -> Ruleset:
    tables = {}
    for table in ruleset.tables.values():
        chains = {}
        for chain in table.chains.values():
            rules = tuple(replace(rule, text=rule.text.replace(old, new)) for rule in chain.rules)
            chains[chain.name] = replace(chain, rules=rules)
        tables[table.name] = Table(table.name, chains)
    return Ruleset(ruleset.family, tables)


def test_a_wrong_spelling_is_undone_and_all_is_rehearsed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel shows something else than was put together, the load is undone; the next try rehearses all."""
    monkeypatch.setattr(known_lines, "canonical_of", changed("-p tcp -m tcp --dport 25", "-p tcp --dport 25"))
    bench.write("20-few.rules", "-A INPUT -p tcp --dport 25 -j ACCEPT\n")
    assert isinstance(bench.run(), Failed)
    assert bench.names == ["rules.failed"]
    assert isinstance(bench.run(Due.RETRY), Done)
    assert bench.rehearsed == [63]
    assert bench.names == ["rules.applied"]


def test_a_wrong_result_is_found_by_the_check(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, saved: Callable[[], dict[str, list[str]]]
) -> None:
    """What was put together is rehearsed whole, once, when nothing waits: a difference is reported as a defect, and
    what all rules make is put in force by the next pass."""
    monkeypatch.setattr(known_lines, "QUIET", 0.0)
    monkeypatch.setattr(known_lines, "canonical_of", changed("192.0.2.7/32", "192.0.2.77/32"))
    bench.write("20-few.rules", "-A INPUT -p tcp --dport 25 -j ACCEPT\n")
    assert isinstance(bench.run(), Done)
    assert "-A INPUT -s 192.0.2.77/32 -p tcp -m tcp --dport 80 -j ACCEPT" in saved()["ipv4"]
    assert bench.check() == [("daemon.fault", DIFFERS)]
    assert isinstance(bench.run(), Done)
    assert bench.names == ["rules.applied"]
    assert "-A INPUT -s 192.0.2.7/32 -p tcp -m tcp --dport 80 -j ACCEPT" in saved()["ipv4"]
    assert bench.check() == []
    assert bench.rehearsed == []


@nft_only
def test_a_rule_that_another_program_removes_is_known_from_its_notice(
    bench: Bench, saved: Callable[[], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported before the kernel is read, and repaired; the repair by iptables is verified by a look."""
    before = saved()
    monkeypatch.setattr(nft_edits, "MANY", 1000)
    bench.worker.read_counters(bench.orders)
    subprocess.run(["iptables-nft", "-D", "INPUT", "3"], check=True)
    looked: list[int] = []

    def emit(kind: EventKind, message: str, /, **_: Any) -> None:
        bench.events.append((kind.name, message))
        looked.append(bench.looks)

    bench.worker._emit = emit
    assert isinstance(bench.run(Due.NOTICE), Done)
    assert (bench.names, looked, bench.looks) == (["drift.detected", "drift.repaired"], [0, 1], 1)
    assert "192.0.2.2/32" in bench.events[0][1]
    assert saved() == before


@nft_only
def test_a_rule_that_another_program_removes_comes_back_as_it_was(
    bench: Bench, saved: Callable[[], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice says what it was made of, so that it is put back over netlink, also into a chain that is empty since;
    no program runs. The next look agrees. Of a rule that iptables has to write, the notice does not say enough."""
    more = "".join(f"-A WEB -s 192.0.2.{number} -j ACCEPT\n" for number in range(4))
    for_iptables = "-A OUTPUT -p tcp -m multiport --dports 1,2 -j ACCEPT\n"
    bench.write("20-few.rules", f":WEB -\n{more}{for_iptables}-A OUTPUT -j WEB\n")
    assert isinstance(bench.run(), Done)
    restored: list[str] = []
    monkeypatch.setattr(LiveKernel, "restore", noting(LiveKernel.restore, restored))
    before = saved()
    for command, texts in (("-F WEB", 0), ("-D INPUT 3", 0), ("-D OUTPUT 1", 1)):
        bench.worker.read_counters(bench.orders)
        restored.clear()
        subprocess.run(["iptables-nft", *command.split()], check=True)
        assert isinstance(bench.run(Due.NOTICE), Done)
        assert (bench.names, bench.looks, len(restored)) == (["drift.detected", "drift.repaired"], texts, texts)
        assert saved() == before
        assert isinstance(bench.run(Due.AGAIN), Done)
        assert (bench.names, saved()) == ([], before)
        assert bench.worker._kernel._last.gone.get(Family.IPV4) is None


def noting(real: Callable[[LiveKernel, Family, str], None], texts: list[str]) -> Callable[..., None]:
    """What notes the texts that are loaded."""

    def restore(self: LiveKernel, family: Family, text: str) -> None:
        texts.append(text)
        real(self, family, text)

    return restore


@nft_only
def test_iptables_has_the_last_word_about_a_rule_that_came_back(
    bench: Bench, saved: Callable[[], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another rule were put back than was removed, the next look finds that: it is a defect, and repaired."""
    bench.write("20-few.rules", "-A INPUT -p tcp --dport 25 -j ACCEPT\n")
    assert isinstance(bench.run(), Done)
    before = saved()
    bench.worker.read_counters(bench.orders)
    right = gone_texts

    def taken_for_the_last(look: Saved, changes: Iterable[Change], handles: Handles) -> Mapping[str, bytes]:
        found = right(look, changes, handles)
        return dict.fromkeys(found, list(found.values())[-1])

    monkeypatch.setattr(nft_edits, "MANY", 20)
    monkeypatch.setattr(last_looks, "gone_texts", taken_for_the_last)
    for _ in range(2):
        subprocess.run(["iptables-nft", "-D", "INPUT", "3"], check=True)
    assert isinstance(bench.run(Due.NOTICE), Done)
    assert (bench.names, bench.looks, saved() == before) == (["drift.detected", "drift.repaired"], 0, False)
    assert isinstance(bench.run(Due.AGAIN), Done)
    assert bench.names == ["drift.detected", "drift.repaired", "daemon.fault"]
    assert saved() == before


@nft_only
def test_drift_that_is_left_alone_is_looked_at_behind_its_notice(bench: Bench) -> None:
    """What was known from the notice, and reported, is compared with what iptables-save shows; a difference is a
    defect."""
    bench.orders = replace(bench.orders, why_not="on_drift is report")
    bench.worker.read_counters(bench.orders)
    subprocess.run(["iptables-nft", "-D", "INPUT", "3"], check=True)
    assert isinstance(bench.run(Due.NOTICE), Done)
    assert (bench.names, bench.looks) == (["drift.detected"], 1)
    for numbers in bench.worker._kernel._last.handles.values():
        numbers.reverse()
    bench.worker.read_counters(bench.orders)
    subprocess.run(["iptables-nft", "-D", "INPUT", "3"], check=True)
    assert isinstance(bench.run(Due.NOTICE), Done)
    assert bench.names == ["drift.detected", "drift.detected", "daemon.fault"]


@nft_only
def test_a_look_soon_after_a_write_reads_nothing_if_nobody_has_written(
    bench: Bench, saved: Callable[[], dict[str, list[str]]]
) -> None:
    """A program that undoes a write is found by the number of commits; what it has done is read, and repaired."""
    bench.write("20-few.rules", "-A INPUT -p tcp --dport 25 -j ACCEPT\n")
    assert isinstance(bench.run(), Done)
    before = saved()
    assert isinstance(bench.run(Due.AGAIN), Done)
    bench.run(Due.AGAIN)
    assert (bench.looks, bench.names) == (0, [])
    subprocess.run(["iptables-nft", "-I", "INPUT", "-j", "ACCEPT"], check=True)
    assert isinstance(bench.run(Due.AGAIN), Done)
    assert bench.names == ["drift.detected", "drift.repaired"]
    assert saved() == before


NEW_RULES = "-P INPUT DROP\n" + "".join(f"-A INPUT -s 198.51.{n % 3}.{n % 200 + 1} -j ACCEPT\n" for n in range(250))


def test_of_a_new_ruleset_two_rules_of_each_form_are_rehearsed(
    bench: Bench, saved: Callable[[], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rules are in force and compared; then, once nothing waits, all are rehearsed, which changes nothing."""
    monkeypatch.setattr(known_lines, "QUIET", 0.0)
    bench.write("10-many.rules", NEW_RULES)
    assert isinstance(bench.run(), Done)
    assert bench.rehearsed == [2 + 2]
    assert bench.names == ["rules.applied"]
    assert sum("-s 198.51." in line for line in saved()["ipv4"]) == 250
    assert bench.check() == []
    assert bench.rehearsed == [252]


def test_a_check_waits_while_something_else_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rules are not rehearsed then, but later, once."""
    monkeypatch.setattr(known_lines, "QUIET", 0.0)
    bench.write("10-many.rules", NEW_RULES)
    assert isinstance(bench.run(), Done)
    bench.worker.check.step_asked()
    assert bench.check() == []
    assert bench.worker._lines.is_to_be_checked
    bench.worker.check.step_begins()
    assert bench.check() == []
    assert not bench.worker._lines.is_to_be_checked
    assert bench.check() == []
    assert bench.rehearsed == []


@pytest.mark.parametrize("spelled", ["-s 198.51.1.2/32 -p tcp -j ACCEPT", "-s 198.51.1.2 -j ACCEPT"])
def test_a_rule_that_is_spelled_wrongly_is_found(
    bench: Bench, saved: Callable[[], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    """A rule that the kernel shows otherwise than its form says is undone, and all is rehearsed; one that is another
    rule is found by the rehearsal of all rules, and reported."""
    monkeypatch.setattr(known_lines, "QUIET", 0.0)
    right = Sample.spelled

    def wrong(self: Sample, rehearsed: Rulesets) -> Rulesets | None:
        found = right(self, rehearsed)
        assert found is not None
        return {family: _with_text(ruleset, WRONG, spelled) for family, ruleset in found.items()}

    before = saved()
    monkeypatch.setattr(Sample, "spelled", wrong)
    bench.write("10-many.rules", NEW_RULES)
    outcome = bench.run()
    if isinstance(outcome, Failed):
        assert saved() == before
        assert isinstance(bench.run(Due.RETRY), Done)
    else:
        assert f"-A INPUT {spelled}" in saved()["ipv4"]
        assert bench.check() == [("daemon.fault", DIFFERS)]
        assert isinstance(bench.run(), Done)
    assert f"-A INPUT {WRONG}" in saved()["ipv4"]
    assert 252 in bench.rehearsed


WRONG = "-s 198.51.1.2/32 -j ACCEPT"


@nft_only
def test_no_table_is_read_while_files_settle(bench: Bench) -> None:
    """A pass that leaves changed files to a later one reads the tables only if somebody may have written to them since:
    the pass of the files waits for it. What another program has changed is found all the same."""
    bench.worker.read_counters(bench.orders)
    bench.write("20-few.rules", "-A INPUT -p tcp --dport 25 -j ACCEPT\n")
    request = PassRequest(Cause(Due.AGAIN.value), look_only=True)
    bench.looks = 0
    outcome = bench.worker.run_pass(bench.orders, request).outcome
    assert isinstance(outcome, Done) and outcome.files_changed
    assert (bench.looks, bench.names) == (0, ["rules.applied"])
    subprocess.run(["iptables-nft", "-I", "INPUT", "-j", "ACCEPT"], check=True)
    bench.worker.run_pass(bench.orders, request)
    assert bench.names[1:] == ["drift.detected", "drift.repaired"]
