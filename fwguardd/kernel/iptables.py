"""The live firewall, through iptables' own programs: reading what is loaded, and loading.

No other module runs these programs on the live tables. Their errors become exceptions here, by what they mean to the
caller. Standard error is kept apart from standard output: warnings are printed there together with exit code 0.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.kernel.processes import (
    Command,
    ProgramMissingError,
    ProgramTimeoutError,
    Running,
    restore_argv,
    run,
    run_all,
    save_argv,
)
from fwguardd.kernel.xtables_lock import LockHeldError, lock_path, xtables_lock
from fwguardd.ruleset.operations import render_plan
from fwguardd.ruleset.save_format import UnreadableSaveError, read_saved

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.operations import Plan
    from fwguardd.ruleset.save_format import Saved

LOCK_SECONDS = 5
"""How long a legacy program waits for the lock before it gives up, in seconds (iptables(8), "-w")."""

PROGRAM_SECONDS = 60.0
"""The longest that one restore or save may take, the wait for the lock included."""

LOOK_SECONDS = 30.0
"""The longest that reading the tables may take; 100,000 rules take 2 s."""

RETRY_WAITS = (0.05, 0.2, 0.8)
"""Seconds between tries of a load that clashed with that of another program."""

REMEMBERED_WRITERS = 64
"""Process ids of our own programs that are remembered, so that their commits are not taken for those of others."""

_VERSION = re.compile(r"iptables v([0-9][^ ]*)(?: \((nf_tables|legacy)\))?")
_LOCKED = ("holding the xtables lock", "Resource temporarily unavailable", "Interrupted system call")
_STALE = (
    "Index of insertion too big", "Index of deletion too big", "does a matching rule exist",
    "RULE_INSERT failed (No such file", "RULE_DELETE failed (No such file",
)  # fmt: skip


class Backend(Enum):
    """The part of the kernel that iptables writes to: nf_tables, or the older x_tables."""

    NFT = "nft"
    LEGACY = "legacy"


class KernelError(Exception):
    """A program of iptables failed. The message contains what it printed."""


class KernelBusyError(KernelError):
    """Another program held the lock, or changed the tables in the same instant. Try again later."""


class KernelStarvedError(KernelBusyError):
    """A program did not end in time, and was killed.

    On nf_tables a program starts over whenever another one writes while it reads the tables; one that writes without
    pause starves it.
    """


class RestoreRefusedError(KernelError):
    """iptables-restore refused a text. The table that the error is about was not changed."""


class StalePlaceError(RestoreRefusedError):
    """A text names a place or a rule that is not there: another program has written since the tables were read."""


class ToolMissingError(KernelError):
    """iptables is not installed, or not in a form that fwguardd can use."""


class IptablesNotPermittedError(KernelError):
    """The process lacks CAP_NET_ADMIN."""


class UnknownContentError(KernelError):
    """A live table that is ours, or is to be, holds what iptables cannot express.

    Loading rules would destroy that, so nothing is loaded.
    """


@dataclass(frozen=True, slots=True)
class Tool:
    """The iptables that is in use: its backend and version, as in "1.8.9"."""

    backend: Backend
    version: str

    def __str__(self) -> str:
        return f"iptables {self.version} ({self.backend.value})"


def find_tool(wanted: Backend | None) -> Tool:
    """The iptables of the wanted backend; None takes the backend that the plain ``iptables`` is.

    Raises ToolMissingError.
    """
    name = "iptables"
    if wanted is not None:
        name = f"iptables-{wanted.value}"
    try:
        finished = run(Command([name, "--version"]), timeout=10)
    except (ProgramMissingError, ProgramTimeoutError) as error:
        raise ToolMissingError(f"{error}; install it with: apt install iptables") from error
    match = _VERSION.match(finished.stdout)
    if not match:
        raise ToolMissingError(f"{name} --version printed {finished.stdout[:80]!r}, which names no version")
    backend = Backend.LEGACY
    if match[2] == "nf_tables":
        backend = Backend.NFT
    return Tool(backend, match[1])


class LiveKernel:
    """The tables of the network namespace that this process is in."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._holds_lock = False
        self._own: deque[int] = deque(maxlen=REMEMBERED_WRITERS)
        self._hidden: dict[Family, frozenset[str]] = {}

    @property
    def hidden(self) -> frozenset[tuple[Family, str]]:
        """The tables that iptables could not show when their family was read last."""
        return frozenset((family, name) for family, names in self._hidden.items() for name in names)

    def wrote(self, pid: int) -> bool:
        """Whether a process of this id was one of ours, among the last that wrote."""
        return pid in self._own

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """A critical section for all programs that respect the lock of legacy iptables; nf_tables has no lock.

        Raises KernelBusyError, with the holder's name, if the lock cannot be taken in time.
        """
        if self.backend is Backend.NFT or self._holds_lock:
            yield
            return
        try:
            with xtables_lock(LOCK_SECONDS):
                self._holds_lock = True
                try:
                    yield
                finally:
                    self._holds_lock = False
        except LockHeldError as error:
            raise KernelBusyError(str(error)) from error
        except OSError as error:
            raise KernelError(f"{lock_path()} cannot be locked: {error.strerror}") from error

    def look(self, families: Collection[Family]) -> Mapping[Family, Saved]:
        """All tables of these families, with counters, and which of them iptables cannot show.

        Raises UnknownContentError where what it shows is not understood, and KernelError for all else.
        """
        commands = [Command(save_argv(self.backend.value, family.number)) for family in families]
        try:
            finished = run_all(commands, LOOK_SECONDS)
        except ProgramTimeoutError as error:
            raise KernelStarvedError(str(error)) from error
        except ProgramMissingError as error:
            raise KernelError(str(error)) from error
        for program in finished:
            if program.code != 0:
                raise _classified(program.argv[0], program.code, program.stderr)
        saved: dict[Family, Saved] = {}
        for family, program in zip(families, finished, strict=True):
            try:
                saved[family] = read_saved(family, program.stdout)
            except UnreadableSaveError as error:
                raise UnknownContentError(str(error)) from error
            self._hidden[family] = saved[family].hidden
        return saved

    def commit(self, plans: Sequence[Plan]) -> None:
        """Carry out plans, one after the other. Raises as `restore` does."""
        commit_plans(self.restore, plans)

    def restore(self, family: Family, text: str) -> None:
        """Load a text on top of what is there (--noflush), counters included; all of a table or nothing of it.

        Raises KernelBusyError, RestoreRefusedError, NotPermittedError or, for all else, KernelError.
        """
        argv = restore_argv(self.backend.value, family.number, noflush=True, lock_seconds=LOCK_SECONDS)
        with self._lock_file() as (path, descriptors):
            try:
                writer = Running(Command(argv, text, {"XTABLES_LOCKFILE": path}, descriptors))
                self._own.append(writer.pid)
                finished = writer.finish(time.monotonic() + PROGRAM_SECONDS)
            except ProgramTimeoutError as error:
                raise KernelStarvedError(str(error)) from error
            except ProgramMissingError as error:
                raise KernelError(str(error)) from error
        if finished.code != 0:
            raise _classified(argv[0], finished.code, finished.stderr)

    @contextlib.contextmanager
    def _lock_file(self) -> Iterator[tuple[str, dict[int, int]]]:
        """The file that a program has to lock, and the descriptors that it inherits for that.

        While this process holds the real lock, that is another file, in memory.
        """
        if not self._holds_lock:
            yield str(lock_path()), {}
            return
        lock = os.memfd_create("xtables.lock")
        try:
            yield "/proc/self/fd/3", {3: lock}
        finally:
            os.close(lock)


def commit_plans(restore: Callable[[Family, str], None], plans: Sequence[Plan]) -> None:
    """Load the texts of plans in order, with ``restore``. Raises what that raises."""
    for plan in plans:
        for text in render_plan(plan):
            _restore_patiently(restore, plan.family, text)


def _restore_patiently(restore: Callable[[Family, str], None], family: Family, text: str) -> None:
    """Load a text; where another program wrote in the same instant, again after a wait, each longer than the last.

    A program that did not end within `PROGRAM_SECONDS` is not started again: passes and verbs wait meanwhile.
    """
    for wait in RETRY_WAITS:
        try:
            return restore(family, text)
        except KernelStarvedError:
            raise
        except KernelBusyError:
            time.sleep(wait)
    return restore(family, text)


def _classified(name: str, code: int, stderr: str) -> KernelError:
    """The exception for what a failed program printed. Exit codes are ambiguous, so the text decides."""
    words = stderr.strip() or "it printed nothing"
    message = f"{name} failed with code {code}: {words}"
    if any(phrase in stderr for phrase in _LOCKED):
        return KernelBusyError(message)
    if "Permission denied" in stderr or "Operation not permitted" in stderr or "you must be root" in stderr:
        return IptablesNotPermittedError(message)
    if any(phrase in stderr for phrase in _STALE):
        return StalePlaceError(message)
    if code > 0:
        return RestoreRefusedError(message)
    return KernelError(message)
