"""A bench for faults: the steps of a daemon's worker thread from known situations, and whether they kept the promises.

Each step is done by a real `Worker` with the real store and the real kernel, in a forked process into which a fault is
injected (`tests.netns.system_calls`). Only the results of the rehearsals were reached before. After the fault has ended
the process does what the daemon would do next: it tries again what asks for it, and starts anew where the daemon would
end.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from fwguardd.enforce.confirmation import CHANGED, RELOAD
from fwguardd.enforce.context import Broken, Done, Failed, Refused, boottime, to_look_at
from fwguardd.enforce.reconcile import STARTED, PassRequest
from fwguardd.enforce.record import Cause
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.kernel.iptables import Backend
from fwguardd.progress import Progress
from fwguardd.ruleset.save_format import render
from fwguardd.settings import Foreign, Settings
from fwguardd.store.revisions import PendingConfirmation, RevisionStore, StoreError
from fwguardd.worker import Worker
from fwguardd.worker_report import Orders, Report
from tests.netns.crashing import A, B, Bench, letters, parse_tables, reload_to_confirm, tables
from tests.netns.system_calls import BEGIN, END, NO_FAULT, Fault, Faulty
from tests.scale import sampled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from fwguardd.enforce.context import Context
    from fwguardd.events import EventKind
    from fwguardd.kernel.rehearsal import RehearsalRefused
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.model import Candidate
    from tests.netns.crashing import Saved, Tables
    from tests.netns.system_calls import Reports

    Act = Callable[[Worker, Orders], Report]
    Note = Callable[[str, Any], None]

PROGRAM_SECONDS: Final = 5.0
"""How long a program may take here: one that a fault makes run for ever shall not hold up a test for a minute."""

MOST_PASSES: Final = 6
"""Passes after the end of a fault, within which everything has to be settled."""

LONGEST_SHOWN: Final = 300
"""Characters of a broken promise that are shown."""

CONFIRM: Final = 3600.0
RELOADED: Final = PassRequest(Cause(RELOAD, "somebody"), CONFIRM)
"""Seconds within which a reload has to be confirmed: longer than any test."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that the worker thread does: the situation that it begins in, and the ruleset that it leads to.

    ``state`` is what the state directory and the daemon say, ``kernel`` the ruleset that is loaded. Without ``act`` the
    step is the start of a daemon.
    """

    state: str
    kernel: str
    files: dict[str, str]
    target: str
    act: Act | None = None


def _change(worker: Worker, orders: Orders) -> Report:
    return worker.run_pass(orders, PassRequest(Cause(CHANGED)))


def _look(worker: Worker, orders: Orders) -> Report:
    return worker.run_pass(orders, PassRequest(Cause("timer"), look_only=True))


STEPS: Final = {
    "change": Step("A", "A", B, "B", _change),
    "reload --confirm": Step("A", "A", B, "B", lambda worker, orders: worker.reload(orders, RELOADED)),
    "expiry": Step("expired", "B", B, "A", _look),
    "rollback": Step("B", "B", B, "A", lambda worker, orders: worker.rollback(orders, None, "somebody")),
    "repair": Step("A", "B", A, "A", _look),
    "open": Step("A", "A", A, "open", lambda worker, orders: worker.open_firewall(orders, "somebody")),
    "start": Step("A", "A", A, "A"),
    "start, kernel changed": Step("A", "B", A, "A"),
    "start, files changed": Step("A", "A", B, "B"),
    "start, expired": Step("expired", "B", B, "A"),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a report says: the kind of its outcome, the ruleset in force, and whether that was verified."""

    outcome: str
    tables: Tables | None
    verified: bool
    sentence: str
    events: tuple[str, ...]


@dataclass(slots=True)
class Trial:
    """One step with a fault: what was claimed and what the kernel held, at the end of the step and in the end."""

    claims: dict[str, Claim] = field(default_factory=dict)
    found: dict[str, Tables] = field(default_factory=dict)
    passes: int = -1
    promised: bool = False
    """Whether a confirmation was pending when the process was killed."""

    @property
    def outcome(self) -> str:
        """What the step was reported to have come to."""
        claim = self.claims.get("step")
        return "ended" if claim is None else claim.outcome

    @property
    def events(self) -> frozenset[str]:
        """What was reported until the end."""
        return frozenset(event for claim in self.claims.values() for event in claim.events)


class BenchWorker(Worker):
    """A worker whose rehearsals are those of a bench, in namespaces that nothing prepares."""

    def __init__(self, bench: FaultBench, emit: Callable[..., None]) -> None:
        self._bench = bench
        super().__init__(bench.settings, bench.bench.host, emit, Progress())

    def _rehearse(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        return self._bench.bench.rehearse(candidate)

    def _prepare_namespaces(self) -> None:
        """None is needed."""

    def _context(self, orders: Orders) -> Context:
        """As ever, without packets through the files."""
        return replace(super()._context(orders), prover=None)


class FaultBench:
    """Situations to begin a step in, and trials of steps."""

    def __init__(self, folder: Path, backend: str, saved: Saved) -> None:
        self.bench = Bench(folder, backend)
        self.saved = saved
        self.settings = Settings(
            rules_dir=self.bench.rules,
            state_dir=self.bench.state,
            backend=self.bench.backend,
            emergency_dir=None,
            foreign=Foreign.REMOVE,  # The rules of another ruleset in the kernel are nobody's that could be kept.
        )
        self.orders = Orders(self.settings)
        self._kept = folder / "kept"
        self._events: list[str] = []
        self._texts: dict[str, dict[str, str]] = {}
        self.rulesets: dict[str, Tables] = {}
        self._make_situations()

    def its_share(self, names: Iterable[str], seed: int) -> Sequence[str]:
        """Of situations that both backends are tried in, half of them for each as a rule, chosen by the seed; with
        packaging/test --long all."""
        return sampled(list(names), seed + list(Backend).index(self.bench.backend), 2)

    def close(self) -> None:
        """End the namespaces of the rehearsals."""
        self.bench.pool.close()

    def _make_situations(self) -> None:
        bench = self.bench
        bench.put(A)
        bench.start()
        self._keep("A")
        bench.put(B)
        bench.start()
        self._keep("B")
        self.load("A", A, "A")
        bench.put(B)
        reload_to_confirm(bench.context(), CONFIRM)
        assert self.end_of_time()
        self._keep("expired")
        self.load("A", A, "A")
        BenchWorker(self, self._emit).open_firewall(self.orders, "somebody")
        self._keep("open")
        self.load("B", B, "B")
        BenchWorker(self, self._emit).rollback(self.orders, None, "somebody")
        self._keep("rolled back")
        self.load("A", A, "A")
        bench.put(B)
        reload_to_confirm(bench.context(), CONFIRM)
        self._keep("pending")

    def _keep(self, name: str) -> None:
        shutil.copytree(self.bench.state, self._kept / name, symlinks=True)
        self._texts[name] = {program: _output(program) for program in self._programs("save")}
        self.rulesets[name] = tables(self.saved)

    def _programs(self, verb: str) -> list[str]:
        backend = self.bench.backend.value
        return [f"{family}-{backend}-{verb}" for family in ("iptables", "ip6tables")]

    def end_of_time(self) -> bool:
        """Let the time for a confirmation be over; whether one is pending and can be read."""
        store = RevisionStore(self.bench.state)
        pending = store.pending()
        if not isinstance(pending, PendingConfirmation):
            return False
        store.set_pending(replace(pending, deadline=boottime(), wall_deadline=time.time()))
        return True

    def load(self, state: str, files: dict[str, str], kernel: str) -> None:
        """Begin in a situation: this state directory, these rule files, this ruleset in the kernel."""
        shutil.rmtree(self.bench.state, ignore_errors=True)
        shutil.copytree(self._kept / state, self.bench.state, symlinks=True)
        self.bench.put(files)
        for program, text in zip(self._programs("restore"), self._texts[kernel].values(), strict=True):
            subprocess.run([program, "--counters"], input=text, text=True, check=True)

    def _emit(self, kind: EventKind, _message: str, /, **_fields: Any) -> None:
        self._events.append(kind.name)

    def trial(self, step: Step, fault: Fault) -> tuple[Trial, Faulty]:
        """Do a step in a process that has a fault, from its situation, and what the daemon does after it.

        After a fault that kills the process a daemon is started.
        """
        trial = Trial()
        self.load(step.state, step.files, step.kernel)

        def work(reports: Reports) -> None:
            worker, report = reports.exposed(lambda: self._exposed(step, reports.send))
            self._end(worker, report, reports.send)

        faulty = Faulty(work, fault, lambda name, value: self._note(trial, name, value))
        if fault.kills and not trial.claims:
            trial.found["killed"] = tables(self.saved)
            trial.promised = RevisionStore(self.bench.state).pending() is not None
            self._settle(None, None, lambda name, value: self._note(trial, name, value))
        return trial, faulty

    def trial_here(self, step: Step, note: Callable[[str], None]) -> Trial:
        """The same without a process of its own: ``note`` is called at the `BEGIN` and the `END` of the fault."""
        trial = Trial()
        self.load(step.state, step.files, step.kernel)

        def noted(name: str, value: Any = None) -> None:
            if name in (BEGIN, END):
                note(name)
            self._note(trial, name, value)

        worker, report = self._exposed(step, noted)
        self._end(worker, report, noted)
        return trial

    def start(self) -> Trial:
        """The start of a daemon in the situation as it is, and what it does after it."""
        trial = Trial()
        self._events.clear()
        self._settle(None, None, lambda name, value: self._note(trial, name, value))
        return trial

    def _note(self, trial: Trial, name: str, value: Any) -> None:
        """Note a claim, and what the kernel holds at that moment."""
        if isinstance(value, Claim):
            trial.claims[name] = value
            trial.found[name] = tables(self.saved)
        if name == "passes":
            trial.passes = value

    def _exposed(self, step: Step, note: Note) -> tuple[Worker | None, Report | None]:
        """A step, during which calls can fail. The worker is made where it works: it may have threads."""
        self._events.clear()
        worker: Worker | None = None
        report: Report | None = None
        if step.act is not None:
            worker = BenchWorker(self, self._emit)
        note(BEGIN, None)
        try:
            if worker is None:
                worker = BenchWorker(self, self._emit)
            report = step.act(worker, self.orders) if step.act else self._first_pass(worker)
        except (StoreError, OSError, MemoryError) as error:
            assert step.act is None, "only a start may fail as a whole"
            self._events.append(f"cannot start: {error}")
        note(END, None)
        return worker, report

    def _end(self, worker: Worker | None, report: Report | None, note: Note) -> None:
        """What follows a step."""
        note("step", self._claim(report))
        self._settle(worker, report, note)

    def _settle(self, worker: Worker | None, report: Report | None, note: Note) -> None:
        """Do what the daemon does after a step, until there is nothing left to do."""
        passes = 0
        for _ in range(MOST_PASSES):
            following = self._next(worker, report)
            if following is None:
                break
            worker, report = following
            passes += 1
        note("passes", passes)
        note("settled", self._claim(report))

    def _first_pass(self, worker: Worker) -> Report:
        return worker.run_pass(self.orders, PassRequest(Cause(STARTED)))

    def _next(self, worker: Worker | None, report: Report | None) -> tuple[Worker, Report] | None:
        """What `daemon.Daemon` does after a report, within two seconds: a retry, a look after a write, or an end, after
        which systemd starts it again."""
        if worker is None or report is None or isinstance(report.outcome, Broken):
            worker = BenchWorker(self, self._emit)
            return worker, self._first_pass(worker)
        outcome = report.outcome
        unverified = outcome.state.unverified not in (None, UnverifiedState.HIDDEN)
        again = unverified or report.state.waits or (isinstance(outcome, Failed) and outcome.retry)
        if again:
            return worker, worker.run_pass(self.orders, PassRequest(Cause("retry")))
        if to_look_at(outcome, again=again):
            return worker, _look(worker, self.orders)
        return None

    def _claim(self, report: Report | None) -> Claim:
        if report is None:
            return Claim("not started", None, verified=False, sentence="", events=tuple(self._events))
        state, outcome = report.state, report.outcome
        claimed: Tables | None = None
        if state.in_force is not None:
            claimed = {"ipv4": {}, "ipv6": {}}
            for family, ruleset in state.in_force.canonical.rulesets.items():
                claimed[family.value] = parse_tables(render(ruleset).text.splitlines())
        assert isinstance(outcome, Done | Failed | Refused | Broken)
        verified = state.unverified is None and not isinstance(outcome, Broken) and not state.drift
        return Claim(type(outcome).__name__, claimed, verified, state.sentence, tuple(self._events))

    def text(self, kernel: str, program: str) -> str:
        """What iptables-save prints for one of the known rulesets, of the family of a program."""
        save = program.replace("-restore", "-save")
        return self._texts[kernel][save]

    def state_files(self, state: str) -> list[Path]:
        """The files in the state directory of a situation, relative to it."""
        folder = self._kept / state
        return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size)

    def name_of(self, found: Tables) -> str:
        """Which of the known rulesets the kernel holds."""
        for name in ("A", "B", "open"):
            if found == self.rulesets[name]:
                return name
        return "a mixture"

    def without_fault(self, step: Step) -> tuple[Trial, Faulty]:
        """Do a step without a fault, and check that it leads where it should."""
        trial, faulty = self.trial(step, NO_FAULT)
        assert list(self.broken_promises(step, trial)) == []
        assert self.name_of(trial.found["step"]) == step.target, trial.claims
        return trial, faulty

    def broken_promises(self, step: Step, trial: Trial) -> Iterator[str]:
        """The promises that a step with a fault did not keep."""
        if "settled" not in trial.claims:
            yield f"the process ended by itself after {list(trial.claims)}"
            return
        before, target = self.rulesets[step.kernel], self.rulesets[step.target]
        for moment, found in trial.found.items():
            claim = trial.claims.get(moment)
            shown = _without_idle_chains(found) if step.target == "open" else found
            try:
                by_family = letters(shown, before, target if target != before else {"ipv4": {}, "ipv6": {}})
            except AssertionError as error:
                yield f"{moment}: {str(error)[:LONGEST_SHOWN]}"
                continue
            if moment == "settled" and len(set("".join(by_family.values()))) > 1:
                yield f"{moment}: parts of two rulesets: {by_family}"
            if claim is not None and claim.verified and claim.tables is not None and claim.tables != found:
                yield f"{moment}: {claim.outcome}, {claim.sentence!r} is not so: {by_family}"
        if not trial.claims["settled"].verified:
            yield f"not settled after {trial.passes} passes: {trial.claims['settled'].sentence}"


def _without_idle_chains(found: Tables) -> Tables:
    """The same without the chains of tables whose built-in chains are empty: an opening that could not look left them,
    and nothing leads to them."""
    left: Tables = {}
    for family, by_name in found.items():
        left[family] = {}
        for name, chains in by_name.items():
            builtin = {chain: content for chain, content in chains.items() if content[0] != "-"}
            idle = not any(rules for _, rules in builtin.values())
            left[family][name] = builtin if idle else chains
    return left


def _output(program: str) -> str:
    return subprocess.run([program, "-c"], check=True, capture_output=True, text=True).stdout
