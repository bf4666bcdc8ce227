"""Random sequences of what happens to a firewall: at each quiet moment status says what the kernel holds."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fwguardd.control.client import DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.enforce.schedule import IN_A_ROW
from tests.netns.conftest import Daemon
from tests.netns.crashing import kill
from tests.netns.model import CREATE_SET, PROGRAMS, ROOT, SET, Model, Rules, loaded
from tests.netns.namespaces import fresh_namespace
from tests.scale import scaled
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.model import Loaded

SEQUENCES: Final = scaled(gate=4, long=150)
"""For each backend."""

ACTIONS: Final = scaled(gate=3, long=12)
"""In each sequence."""

SETTINGS: Final = "settle: 50ms\ndrift_interval: 250ms\n"

FAILS: Final = """#!/bin/sh
flag={folder}/${{0##*-}}-fails
[ ! -e $flag ] || [ "$(cat $flag)" != "$(readlink /proc/self/ns/net)" ] || {{ echo "it fails" >&2; exit 1; }}
exec /usr/sbin/{name} "$@"
"""
"""A program that fails in one network namespace while a file names that namespace."""

KINDS: Final = Path(__file__).with_name("author_kinds.py")

ADDED: Final = "ipv4 filter -A INPUT -p udp -m udp --dport {port} -j ACCEPT"
"""A rule that another program adds, as events name it."""

MEASURED: Final = frozenset({"in-force", "drifted"})
"""States that are the result of a comparison."""


class Sequence:
    """One daemon in a namespace of its own, what was done to it, and the model of what it should have done."""

    def __init__(self, folder: Path, backend: str, chance: random.Random) -> None:
        self._folder, self._backend, self._chance = folder, backend, chance
        self.done: list[str] = []
        self.kinds: Counter[str] = Counter()
        self._port = 1000
        # With keep-services, what a service adds stays, and so does what an unknown process adds.
        self._foreign = chance.choice(["remove", "keep-services"])
        (folder / "kind").write_text("unknown")
        self._enter = self._wrapped(folder / "bin")
        (folder / "rules").mkdir()
        self.model = Model(backend, self._new_rules(), has_set=chance.random() < 0.8)
        if self.model.has_set:
            subprocess.run(CREATE_SET.split(), check=True)
        self._write()
        self._daemon = self._start()
        self.model.files_changed()
        self._settle("start")

    def _wrapped(self, folder: Path) -> tuple[str, ...]:
        folder.mkdir()
        for program in PROGRAMS.values():
            for verb in ("save", "restore"):
                name = f"{program}-{self._backend}-{verb}"
                (folder / name).write_text(FAILS.format(folder=self._folder, name=name))
                (folder / name).chmod(0o755)
        mount = f'mount --bind {folder} /usr/local/sbin && exec "$@"'
        wrapped = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
        return (*wrapped, sys.executable, str(KINDS))

    def _start(self) -> Daemon:
        settings = f"{SETTINGS}foreign: {self._foreign}\n"
        environment = {"FWGUARD_TEST_KIND": str(self._folder / "kind")}
        daemon = Daemon(self._folder, self._backend, settings, environment, enter=self._enter)
        daemon.event("daemon.started")
        return daemon

    def close(self) -> None:
        """End the daemon."""
        self._daemon.close()

    def step(self) -> None:
        """One action, and the quiet moment after it."""
        actions: list[Callable[[], str]] = [
            self._edit, self._edit, self._change_by_another, self._change_by_another, self._change_of_the_set,
            self._change_of_the_set, self._kill, self._restart, self._boot, self._open, self._open_for, self._rollback,
            self._rollback, self._reload, self._reload, self._confirm, self._expire, self._pause, self._fail_to_load,
            self._fail_to_read, self._add_rule, self._fight, self._kill_in_rollback,
            self._kill_in_reload, self._add_while_open,
        ]  # fmt: skip
        chosen = self._chance.choice(actions)
        what = chosen()
        self.kinds["nothing" if what == "nothing" else chosen.__name__.strip("_")] += 1
        self._settle(what)

    # What is done. Each returns a word for the list, and leaves the model as the daemon should be after it.

    def _edit(self) -> str:
        self.model.directory = self._new_rules()
        self._write()
        self.model.files_changed()
        return f"edit {self.model.directory}"

    def _change_by_another(self) -> str:
        if self.model.emergency or self.model.is_open or self.model.in_force is None:
            return "nothing"
        if not self.model.paused:
            self._ask("resume")  # Repairs so far do not count as a fight.
        what = self._other_program()
        if self.model.paused:
            self.model.left = loaded(self._backend)
        return f"another program: {what}"

    def _other_program(self) -> str:
        program = self._chance.choice(list(PROGRAMS.values()))
        self._port += 1
        changes = ["-F INPUT", "-P INPUT ACCEPT", "-t nat -F"]
        if self._foreign == "remove":
            changes.append(f"-A INPUT -p udp --dport {self._port} -j ACCEPT")
        change = self._chance.choice(changes)
        self._run(f"{program}-{self._backend} -w 60 {change}")
        return f"{program} {change}"

    def _change_of_the_set(self) -> str:
        if not self.model.has_set:
            self._run(CREATE_SET)
            self.model.has_set = True
            if self.model.emergency:
                self.model.emergency = False
            self.model.files_changed()
            return "the set comes"
        self._ask("pause", seconds=600)
        for program in PROGRAMS.values():
            self._run(f"{program}-{self._backend} -w 60 -F INPUT")
        self._run(f"ipset destroy {SET}")
        self.model.has_set = False
        self._ask("resume")
        self.model.paused, self.model.left = False, None
        if self.model.is_open:
            return "the set goes"
        return "the set goes, and INPUT is flushed"

    def _kill(self) -> str:
        what = self._chance.choice([self._edit, self._change_by_another, self._nothing])()
        kill(self._daemon.process.pid, with_children=self._chance.random() < 0.5)
        return f"{what}, kill, {self._start_again()}"

    def _restart(self) -> str:
        self._daemon.stop()
        what = self._chance.choice([self._edit, self._other_program_unless_open, self._nothing])()
        return f"stop, {what}, {self._start_again()}"

    def _other_program_unless_open(self) -> str:
        if self.model.emergency or self.model.is_open or self.model.in_force is None:
            return "nothing"
        return self._other_program()

    def _nothing(self) -> str:
        return "nothing"

    def _start_again(self) -> str:
        self._daemon.close()
        self._daemon = self._start()
        self.model.paused, self.model.left = False, None
        if not self.model.is_open:
            self.model.files_changed()
        return "start"

    def _boot(self) -> str:
        """All rules and the set are gone; the boot loader runs, and then the daemon."""
        if self.model.in_force is None and not self.model.is_open:
            return "nothing"
        self._daemon.stop()
        for program in PROGRAMS.values():
            for table in ("filter", "nat"):
                self._run(f"{program}-{self._backend} -w 60 -t {table} -F")
                self._run(f"{program}-{self._backend} -w 60 -t {table} -X")
            for chain in ("INPUT", "FORWARD", "OUTPUT"):
                self._run(f"{program}-{self._backend} -w 60 -P {chain} ACCEPT")
        if self.model.has_set and self._chance.random() < 0.5:
            self._run(f"ipset destroy {SET}")
            self.model.has_set = False
        self.model.by_hand = None
        argv = [str(ROOT / "packaging" / "fwguardd-boot"), "--state-dir", str(self._folder / "state")]
        argv += ["--runtime-dir", str(self._folder / "run"), "--emergency-dir", str(ROOT / "packaging" / "emergency")]
        subprocess.run(argv, check=False, capture_output=True)
        if not self.model.is_open and not self.model.loadable(self.model.in_force):
            self.model.emergency = True
        return f"boot (set: {self.model.has_set}), {self._start_again()}"

    def _open(self) -> str:
        self._ask("open")
        self.model.puts(None)
        self.model.held = True
        return "open"

    def _open_for(self) -> str:
        if self.model.is_open or self.model.in_force is None or not self.model.loadable(self.model.in_force):
            return "nothing"
        self._ask("open", seconds=1)
        self._daemon.event("rules.closed")
        self.model.puts(self.model.in_force)
        self.model.files_changed()
        return "open for 1 s"

    def _rollback(self) -> str:
        if not self.model.known:
            return "nothing"
        number = self._chance.choice(sorted(self.model.known))
        rules = self.model.known[number]
        outcome = self._ask("rollback", revision=number)["outcome"]
        assert (outcome == "failed") == (not self.model.loadable(rules)), (outcome, number, rules)
        if outcome != "failed":
            self.model.puts(rules)
            self.model.held = True
        return f"rollback {number}: {outcome}"

    def _reload(self) -> str:
        outcome = self._ask("reload")["outcome"]
        self.model.applies_files()
        return f"reload: {outcome}"

    def _confirm(self) -> str:
        if self._cannot_be_confirmed():
            return "nothing"
        self._edit_unnoticed()
        self._ask("reload", confirm_seconds=600)
        self.model.applies_files()
        self._settle("reload --confirm")
        self._ask("confirm")
        return "confirm"

    def _expire(self) -> str:
        if self._cannot_be_confirmed() or not self.model.loadable(self.model.in_force) or self.model.emergency:
            return "nothing"
        before = self.model.in_force
        self._edit_unnoticed()
        self._ask("reload", confirm_seconds=1)
        self._daemon.event("rules.unconfirmed")
        self.model.puts(before)
        self.model.held = True
        return "reload --confirm, not confirmed"

    def _cannot_be_confirmed(self) -> bool:
        return self.model.is_open or self.model.in_force is None

    def _edit_unnoticed(self) -> None:
        """Other rules that the kernel takes, which a reload follows at once."""
        self._port += 1
        self.model.directory = Rules(self._port)
        if not self.model.held:
            self._ask("hold")
        self._write()

    def _pause(self) -> str:
        if self.model.paused:
            self._ask("resume")
            self.model.paused, self.model.left = False, None
            return "resume"
        if self.model.state() == "drifted":
            self.model.left = loaded(self._backend)  # What could not be repaired is not repaired now either.
        self._ask("pause", seconds=600)
        self.model.paused = True
        return "pause"

    def _fail_to_load(self) -> str:
        """While each load fails, another program changes the rules, and somebody wants to open the firewall."""
        if self.model.state() != "in-force":
            return "nothing"
        flag = self._let_fail("restore")
        self._ask("resume")
        self.model.paused = False
        what = self._other_program()
        self.model.left = loaded(self._backend)
        self._settle(f"loads fail, {what}")
        assert self._ask("open")["outcome"] == "failed"
        self._settle("open, which fails")
        flag.unlink()
        self.model.left = None
        return "loads succeed again"

    def _let_fail(self, verb: str) -> Path:
        """Let the programs with this verb fail in this namespace, until the file is removed."""
        flag = self._folder / f"{verb}-fails"
        beside = self._folder / "flag"
        beside.write_text(os.readlink("/proc/thread-self/ns/net"))
        return beside.rename(flag)

    def _fail_to_read(self) -> str:
        """While the kernel cannot be read, the state is unverified, unless nothing is compared in any case."""
        flag = self._let_fail("save")
        self.model.readable = False
        self._settle("reading fails")
        if self.model.emergency:
            assert "emergency set" in self._ask("status")["state_facts"]
        flag.unlink()
        self.model.readable = True
        return "reading succeeds again"

    def _add_rule(self) -> str:
        """A service or an unknown process adds a rule, which stays until an administrator has it removed."""
        if self._foreign == "remove" or self.model.state() != "in-force" or self.model.paused:
            return "nothing"
        self._port += 1
        known = self._backend == "nft" and self._chance.random() < 0.5
        (self._folder / "kind").write_text({True: "service", False: "unknown"}[known])
        self.model.added, self.model.undecided = self._port, not known
        argv = [f"iptables-{self._backend}-restore", "-w", "60", "--noflush"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            process.stdin.write(f"*filter\n-A INPUT -p udp --dport {self._port} -j ACCEPT\nCOMMIT\n")
            process.stdin.flush()  # It commits now, and can be looked at until its input ends.
            if known:
                self._daemon.event("drift.kept", others=[ADDED.format(port=self._port)])
            process.stdin.close()
        self._settle(f"another program adds a rule, known: {known}")
        (self._folder / "kind").write_text("unknown")
        number = self._ask("others")["rules"][-1]["number"]
        done = self._chance.choice(["removes the rule", "removes a rule that was kept", "deletes the rule by hand"])
        if "kept" in done:
            self._ask("adopt", numbers=(number,))
            self.model.undecided = False
            self._settle("an administrator keeps it")
        if "hand" in done:
            self._run(f"iptables-{self._backend} -w 60 -D INPUT -p udp --dport {self._port} -j ACCEPT")
        else:
            self._ask("adopt", numbers=(number,), remove=True)
        self.model.added, self.model.undecided = None, False
        return done

    def _fight(self) -> str:
        """Another program undoes each repair of a rule, until repairs are suspended."""
        if self.model.state() != "in-force":
            return "nothing"
        self._ask("resume")
        self.model.paused = False
        for number in range(IN_A_ROW):
            self._run(f"iptables-{self._backend} -w 60 -D INPUT -i lo -j ACCEPT")
            self._ask("drift")
            self._daemon.event("drift.repaired")
            self._settle(f"a fight, {number + 1}")
        self._run(f"iptables-{self._backend} -w 60 -D INPUT -i lo -j ACCEPT")
        self.model.left = loaded(self._backend)
        self._settle("a fight")
        assert self._ask("status")["drift"]["fight"] is not None
        self._ask("resume")
        self.model.left = None
        return "resume after a fight"

    def _kill_in_rollback(self) -> str:
        """The daemon is killed at any instant of a rollback: either all of it has happened, or nothing."""
        if not self.model.known:
            return "nothing"
        before = self._ask("status")["in_force"]["revision"]
        number = self._chance.choice(sorted(self.model.known))
        status = self._killed_while("rollback", revision=number)
        if status["in_force"]["revision"] != before and status["in_force"]["cause"].startswith("rollback"):
            assert status["held"] is not None, status
            self.model.puts(self.model.known[number])
        self._take_held(status)
        return f"rollback {number}, kill"

    def _kill_in_reload(self) -> str:
        """The daemon is killed at any instant of a reload: the files are in force, or what was in force before is."""
        before = self._ask("status")["in_force"]
        status = self._killed_while("reload")
        now = status["in_force"]
        if now is not None and (before is None or now["revision"] != before["revision"]):
            self.model.puts(self.model.directory)
        self._take_held(status)
        return "reload, kill"

    def _killed_while(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Kill the daemon at any instant of a verb, and start it again; the status after its first pass."""
        asking = threading.Thread(target=self._ask_until_the_end, args=(verb,), kwargs=arguments)
        asking.start()
        time.sleep(self._chance.random() * 0.3)
        kill(self._daemon.process.pid, with_children=self._chance.random() < 0.5)
        asking.join()
        was_open, self.model.is_open = self.model.is_open, True  # Nothing is decided about the files yet.
        self._start_again()
        self.model.is_open = was_open
        wait_until(self._answers, "the daemon", pause=0.05)
        self._ask("drift")
        return self._ask("status")

    def _take_held(self, status: dict[str, Any]) -> None:
        """After a kill: files are held or not, whichever it was; those that are not are applied."""
        self.model.held = status["held"] is not None or self.model.is_open
        if not self.model.is_open:
            self.model.files_changed()

    def _add_while_open(self) -> str:
        """While everything is accepted, somebody adds a rule by hand, which stays until other rules are loaded."""
        if not self.model.is_open or self.model.by_hand is not None:
            return "nothing"
        self._port += 1
        self.model.by_hand = f"-A OUTPUT -p udp --dport {self._port} -j RETURN"
        self._run(f"iptables-{self._backend} -w 60 {self.model.by_hand}")
        return "a rule by hand, while open"

    def _answers(self) -> bool:
        try:
            self._ask("status")
        except DaemonUnreachableError:
            return False
        return True

    def _ask_until_the_end(self, verb: str, **arguments: Any) -> None:
        with contextlib.suppress(DaemonUnreachableError, RequestRefusedError):
            self._ask(verb, **arguments)

    # How it is done.

    def _new_rules(self) -> Rules:
        self._port += 1
        kind = self._chance.random()
        return Rules(self._port, with_set=kind < 0.4, bad=kind > 0.8)

    def _write(self) -> None:
        beside = self._folder / "rules" / ".new"
        beside.write_text(self.model.directory.file)
        beside.rename(self._folder / "rules" / "10.rules")

    def _run(self, command: str) -> None:
        # The set is in use for a moment after a rule that named it was removed.
        end = time.monotonic() + LONGEST
        while subprocess.run(command.split(), check=False, capture_output=True).returncode != 0:
            assert time.monotonic() < end, command
            time.sleep(0.02)

    def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return dict(ask(self._folder / "run" / "control.sock", verb, arguments))

    def _settle(self, what: str) -> None:
        """Wait for the quiet moment: a comparison after the last action, with the result that the model expects."""
        acted = time.time()
        self.done.append(what)
        expected, end = self.model.expected(), time.monotonic() + 2 * LONGEST
        while True:
            problem, status = self._mismatch(acted, expected)
            if not problem:
                break
            assert time.monotonic() < end, f"{problem}\n{self.model}\nstatus: {status}\n{self._daemon.seen}"
            time.sleep(0.05)
        if status["in_force"] is not None:
            self.model.known[status["in_force"]["revision"]] = self.model.rules()

    def _mismatch(self, acted: float, expected: Loaded) -> tuple[str, dict[str, Any]]:
        """How the kernel, and what status says of it, differ from the model; "" if they do not."""
        try:
            status = self._ask("status")
        except DaemonUnreachableError as error:
            return str(error), {}
        problem = self._mismatch_of_status(acted, status)
        if problem or not self.model.is_certain():
            return problem, status
        live = self.model.without_added(loaded(self._backend))
        if live != expected:
            return f"the kernel holds {live}\nexpected {expected}", status
        return "", status

    def _mismatch_of_status(self, acted: float, status: dict[str, Any]) -> str:
        if status["state"] in MEASURED and (status["compared"] or 0.0) < acted:
            return "it was not compared yet"
        if status["state"] != self.model.state() or status["files"] not in self.model.files():
            return f"expected {self.model.state()}, files {self.model.files()}"
        if status["in_force"] is not None and self.model.is_other(status["in_force"]["revision"]):
            return f"it names another revision than that of {self.model.rules()}"
        return ""


def test_status_says_what_the_kernel_holds(tmp_path: Path, backend: str, seed: int) -> None:
    """After edits, changes by other programs, missing sets, loads that fail, kills, restarts, boots, open, rollback,
    confirm and pause, in any order: the state and the kernel are those of the model."""
    moments, kinds = 0, Counter[str]()
    for number in range(SEQUENCES):
        folder = tmp_path / str(number)
        folder.mkdir()
        chance = random.Random(f"{seed} {backend} {number}")
        with fresh_namespace():
            sequence = _sequence(folder, backend, chance)
        moments += len(sequence.done)
        kinds += sequence.kinds
    print(f"{backend}: {SEQUENCES} sequences, {moments} quiet moments compared, actions: {dict(kinds.most_common())}")


def _sequence(folder: Path, backend: str, chance: random.Random) -> Sequence:
    """Go through one sequence; it is printed where it fails."""
    sequence = Sequence(folder, backend, chance)
    try:
        for _ in range(ACTIONS):
            sequence.step()
    except (AssertionError, RequestRefusedError, DaemonUnreachableError):
        print("\n".join(sequence.done))
        raise
    finally:
        sequence.close()
    return sequence
