"""The live firewall, through iptables' own programs: reading what is loaded, and loading.

No other module runs these programs on the live tables. Their errors become exceptions here, by what they mean to the
caller. Standard error is kept apart from standard output: warnings are printed there together with exit code 0.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections import deque
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.errors import NotPermittedError, ReportedError
from fwguardd.kernel import nft_tables
from fwguardd.kernel.last_looks import LastLooks, present
from fwguardd.kernel.nft_edits import ChangedMeanwhileError, LiveEdits
from fwguardd.kernel.processes import (
    TRANSIENT,
    Command,
    ProgramError,
    ProgramNotStartedError,
    ProgramOutputError,
    ProgramTimeoutError,
    Reserve,
    Running,
    restore_argv,
    run,
    run_all,
    save_argv,
)
from fwguardd.kernel.xtables_lock import LockHeldError, lock_for_programs, lock_path, xtables_lock
from fwguardd.ruleset.operations import render_plan
from fwguardd.ruleset.save_format import IncompleteSaveError, UnreadableSaveError
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from fwguardd.kernel.processes import Finished
    from fwguardd.kernel.rehearsed_rules import RehearsedRules
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.ruleset.operations import LiveRule, Plan
    from fwguardd.ruleset.save_format import Saved

    _Read = Callable[[Family, str], Saved]

LOCK_SECONDS = 5
"""How long a legacy program waits for the lock before it gives up, in seconds (iptables(8), "-w")."""

PROGRAM_SECONDS = 60.0
"""The longest that one restore or save may take, the wait for the lock included."""

LOOK_SECONDS = 30.0
"""The longest that reading the tables may take; 100,000 rules take 2 s."""

LOOK_WAITS = (0.02, 0.1)
"""Seconds between tries of a look that was not whole, or for which the system lacked memory, processes or files."""

REMEMBERED_WRITERS = 64
"""Process ids of our own programs that are remembered, so that their commits are not taken for those of others."""

_VERSION = re.compile(r"iptables v([0-9][^ ]*)(?: \((nf_tables|legacy)\))?")
_LOCKED = ("holding the xtables lock", "Resource temporarily unavailable", "Interrupted system call")
_SHORT = ("Cannot allocate memory", "Memory allocation problem", "No buffer space available", "Too many open files")
_STALE = (
    "Index of insertion too big", "Index of deletion too big", "does a matching rule exist",
    "RULE_INSERT failed (No such file", "RULE_DELETE failed (No such file",
)  # fmt: skip
_NOT_PERMITTED = ("Permission denied", "Operation not permitted", "you must be root")


class Backend(Enum):
    """The part of the kernel that iptables writes to: nf_tables, or the older x_tables."""

    NFT = "nft"
    LEGACY = "legacy"


class KernelError(ReportedError):
    """A program of iptables failed. The message contains what it printed."""


class KernelBusyError(KernelError):
    """Another program held the lock, or changed the tables in the same instant. Try again later."""


class KernelStarvedError(KernelBusyError):
    """A program did not end in time, and was killed.

    On nf_tables a program starts over whenever another one writes while it reads the tables; one that writes without
    pause starves it.
    """


class KernelShortError(KernelBusyError):
    """The system lacks memory, processes or descriptors to run a program. Nothing was written. Try again later."""


class LoadInterruptedError(KernelBusyError):
    """A load was killed or lacked memory: it may have written all, nothing, or some of its tables."""


class LookIncompleteError(KernelBusyError):
    """iptables-save did not print all that the kernel holds, though it exited with 0. Try again later."""


class RestoreRefusedError(KernelError):
    """iptables-restore refused a text. The table that the error is about was not changed."""


class StalePlaceError(RestoreRefusedError):
    """A text names a place or a rule that is not there: another program has written since the tables were read."""


class ToolMissingError(KernelError):
    """iptables is not installed, or not in a form that fwguardd can use."""


class IptablesNotPermittedError(KernelError, NotPermittedError):
    """The process lacks CAP_NET_ADMIN."""


class UnknownContentError(KernelError):
    """A table of ours, or to be, holds what iptables cannot express. Loading rules would destroy that: none are."""


@dataclass(frozen=True, slots=True)
class Tool:
    """The iptables that is in use: its backend and version, as in "1.8.9"."""

    backend: Backend
    version: str

    def __str__(self) -> str:
        return f"iptables {self.version} ({self.backend.value})"


def find_tool(wanted: Backend | None) -> Tool:
    """The iptables of the wanted backend; None takes that of the plain ``iptables``. Raises ToolMissingError."""
    name = "iptables"
    if wanted is not None:
        name = f"iptables-{wanted.value}"
    try:
        finished = run(Command([name, "--version"]), timeout=10)
    except ProgramError as error:
        raise ToolMissingError(f"{error}; install it with: apt install iptables") from error
    match = _VERSION.match(finished.stdout)
    if not match:
        raise ToolMissingError(f"{name} --version printed {finished.stdout[:80]!r}, which names no version")
    return Tool({"nf_tables": Backend.NFT}.get(match[2], Backend.LEGACY), match[1])


class LiveKernel:
    """The tables of the network namespace that this process is in."""

    def __init__(self, backend: Backend, rehearsed: RehearsedRules | None = None) -> None:
        """``rehearsed`` has what new rules are made of, for edits over netlink."""
        self.backend = backend
        self._holds_lock = False
        self._own: deque[int] = deque(maxlen=REMEMBERED_WRITERS)
        self._last = LastLooks()
        self._edits = LiveEdits(rehearsed, self._own.append)

    @property
    def hidden(self) -> frozenset[tuple[Family, str]]:
        """The tables that iptables could not show when their family was read last."""
        return self._last.hidden

    @property
    def shown(self) -> Mapping[Family, Ruleset]:
        """What iptables showed of each family when it was read last, with counters."""
        return self._last.shown

    def wrote(self, pid: int) -> bool:
        """Whether a process of this id was one of ours, among the last that wrote."""
        return pid in self._own

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """A critical section for all programs that respect the lock of legacy iptables; nf_tables has no lock. Raises
        KernelBusyError, with the holder's name, if the lock cannot be taken in time.
        """
        if self.backend is Backend.NFT or self._holds_lock:
            yield
            return
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(xtables_lock(LOCK_SECONDS))
            except LockHeldError as error:
                raise KernelBusyError(str(error)) from error
            except OSError as error:
                raise _system_error(error, f"{lock_path()} cannot be locked") from error
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    def look(self, families: Collection[Family]) -> Mapping[Family, Saved]:
        """All tables of these families, with counters, and which of them iptables cannot show.

        What is printed has to be whole: each table that the kernel has is there, with its end. A read that fails inside
        iptables-save can leave out the rules of a chain all the same, so the first look, and one that shows less than
        the look before where nothing was written here since, is compared with the number of rules that nf_tables lists;
        on legacy, and where that differs, it is taken twice, and the fuller one counts. Raises LookIncompleteError
        where it is not whole, and KernelError for all else.
        """
        began = present(self.backend.value)
        saved = dict(_look_patiently(self.backend, families, self._last.read))
        doubtful = self._last.to_take_again(saved, began)
        if doubtful:
            for family, again in _look_patiently(self.backend, doubtful, self._last.read).items():
                if not again.shows_less_than(saved[family].shown):
                    saved[family] = again
        self._last.keep(saved, began, present(self.backend.value))
        return saved

    def share_texts(self, rulesets: Mapping[Family, Ruleset]) -> None:
        """Let equal rules of the next look have the text objects of these, so that each text is in memory once."""
        self._last.like = rulesets

    def last_look(self, families: Collection[Family]) -> Mapping[Family, Saved] | None:
        """The last look at these families, with the counters of then, if nobody has written to nf_tables since, and the
        programs are the same; None where that is not known."""
        return self._last.at(families, present(self.backend.value))

    def recounted(self, rules: Mapping[Family, Sequence[LiveRule]]) -> Mapping[Family, Saved] | None:
        """The same, with what these rules have counted by now; None where that is not known, or they are many."""
        return self._last.recounted(rules, present(self.backend.value))

    def commit(self, plans: Sequence[Plan]) -> None:
        """Carry out plans: an edit of few rules among many over netlink, or one after the other. No text is loaded
        twice: one that failed may have been committed for some of its tables. Raises as `restore` does."""
        try:
            if self._edits.carry_out(plans, self._last, present(self.backend.value)):
                return
        except ChangedMeanwhileError as error:
            raise StalePlaceError(str(error)) from error
        for plan in plans:
            for text in render_plan(plan):
                self.restore(plan.family, text)

    def restore(self, family: Family, text: str) -> None:
        """Load a text on top of what is there (--noflush), counters included; all of a table or nothing of it.

        A dormant table is active afterwards, and chains without a hook are replaced: both filter nothing. Raises
        KernelBusyError, RestoreRefusedError, IptablesNotPermittedError or, for all else, KernelError.
        """
        self._last.written.add(family)
        tables = [line[1:] for line in text.splitlines() if line.startswith("*")]
        if self.backend is Backend.NFT:
            with _system_errors("nothing can be loaded"):
                nft_tables.remove_hookless_chains(family, tables)
        argv = restore_argv(self.backend.value, family.number, noflush=True, lock_seconds=LOCK_SECONDS)
        in_memory = _system_errors("no file in memory can be made")
        with in_memory, lock_for_programs(is_held=self._holds_lock) as (path, descriptors):
            try:
                writer = Running(Command(argv, text, {"XTABLES_LOCKFILE": path}, descriptors))
                self._own.append(writer.pid)
                finished = writer.finish(time.monotonic() + PROGRAM_SECONDS)
            except ProgramError as error:
                raise _program_error(error) from error
        if finished.code < 0:
            raise LoadInterruptedError(f"{argv[0]} was killed by {signal.Signals(-finished.code).name}")
        if finished.code != 0:
            raise _classified(argv[0], finished.code, finished.stderr)
        if self.backend is Backend.NFT:
            with _system_errors("a dormant table cannot be activated"):
                nft_tables.activate_tables(family, tables)


@contextlib.contextmanager
def reserve_for_undo() -> Iterator[Reserve]:
    """What undoing a write may need, had before it. Raises KernelError where it cannot be had."""
    try:
        with _system_errors("no descriptors can be held in reserve for an undo"):
            reserve = Reserve()
    except MemoryError as error:
        raise KernelShortError("no memory can be held in reserve for an undo") from error
    try:
        yield reserve
    finally:
        reserve.give_back()


def _look_patiently(backend: Backend, families: Collection[Family], read: _Read) -> Mapping[Family, Saved]:
    for wait in LOOK_WAITS:
        try:
            return _look_once(backend, families, read)
        except (LookIncompleteError, KernelShortError):
            time.sleep(wait)
    return _look_once(backend, families, read)


def _look_once(backend: Backend, families: Collection[Family], read: _Read) -> Mapping[Family, Saved]:
    """What iptables-save prints. The kernel's own list is read first: a table that is made meanwhile may be shown."""
    tables = {family: _kernel_tables(backend, family) for family in families}
    try:
        finished = run_all([Command(save_argv(backend.value, family.number)) for family in families], LOOK_SECONDS)
    except ProgramOutputError as error:
        raise LookIncompleteError(str(error)) from error
    except ProgramError as error:
        raise _program_error(error) from error
    saved: dict[Family, Saved] = {}
    for family, program in zip(families, finished, strict=True):
        present, dormant = tables[family]
        saved[family] = replace(_whole(family, program, present, read), dormant=dormant)
    return saved


def _kernel_tables(backend: Backend, family: Family) -> tuple[frozenset[str], frozenset[str]]:
    """The tables that the kernel has, and those of them that are dormant. Raises KernelError."""
    with _system_errors("the kernel's list of tables cannot be read"):
        if backend is Backend.NFT:
            return nft_tables.nft_table_names(family), nft_tables.dormant_table_names(family)
        return nft_tables.legacy_table_names(family), frozenset()


def _whole(family: Family, program: Finished, present: frozenset[str], read: _Read) -> Saved:
    """What a save shows, if that is all that the kernel has. Raises KernelError."""
    name = program.argv[0]
    if program.code != 0:
        raise _failed_look(name, program)
    try:
        saved = read(family, program.stdout)
    except IncompleteSaveError as error:
        raise LookIncompleteError(f"{name} did not show all rules: {error}") from error
    except UnreadableSaveError as error:
        raise LookIncompleteError(str(error)) from error
    missing = present - saved.shown.tables.keys() - saved.hidden
    if missing:
        raise LookIncompleteError(f"{name} did not show all tables: the kernel has {', '.join(sorted(missing))} too")
    return saved


def _program_error(error: ProgramError) -> KernelError:
    """The exception for a program that was not run to its end."""
    if isinstance(error, ProgramTimeoutError):
        return KernelStarvedError(str(error))
    if isinstance(error, ProgramNotStartedError):
        return KernelShortError(str(error))
    if isinstance(error, ProgramOutputError):
        return LoadInterruptedError(str(error))
    return KernelError(str(error))


@contextlib.contextmanager
def _system_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _system_error(error, what) from error


def _system_error(error: OSError, what: str) -> KernelError:
    """The exception for a system call that failed."""
    message = f"{what}: {error.strerror or error}"
    if error.errno in TRANSIENT:
        return KernelShortError(message)
    if isinstance(error, PermissionError):
        return IptablesNotPermittedError(message)
    return KernelError(message)


_BY_PHRASES: tuple[tuple[tuple[str, ...], type[KernelError]], ...] = (
    (_LOCKED, KernelBusyError), (_SHORT, LoadInterruptedError),
    (_NOT_PERMITTED, IptablesNotPermittedError), (_STALE, StalePlaceError),
)  # fmt: skip


def _failed_look(name: str, program: Finished) -> KernelError:
    if program.code < 0:
        return LookIncompleteError(f"{name} was killed by {signal.Signals(-program.code).name}")
    error = _classified(name, program.code, program.stderr)
    if isinstance(error, IptablesNotPermittedError):
        return error
    return LookIncompleteError(str(error))


def _classified(name: str, code: int, stderr: str) -> KernelError:
    """The exception for what a failed program printed. Exit codes are ambiguous, so the text decides."""
    message = f"{name} failed with code {code}: {stderr.strip() or 'it printed nothing'}"
    for phrases, error in _BY_PHRASES:
        if any(phrase in stderr for phrase in phrases):
            return error(message)
    if code > 0:
        return RestoreRefusedError(message)
    return KernelError(message)
