"""The events of a pass: what was written, what failed, and what could not be verified; and of the boot loader's report.

On nf_tables iptables-save starts over whenever another program commits while it reads (__nft_build_cache() in iptables'
nft-cache.c), so a program that writes without pause starves it. Nothing is known to be wrong then, and nothing is
undone: what was written last counts as in force, one event says so, and the kernel is read again later.

A rule that iptables cannot express, such as some that nft makes, hides its whole table. Loading rules would destroy it,
so nothing is repaired, and one event says so, with the process that made the rule.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.before_load import recall_before_load
from fwguardd.enforce.context import Broken, Context, Failed, still_in_force
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.record import touched_before
from fwguardd.enforce.transaction import Applied, UndoDelayedError, UndoFailedError, UndoneError, Unverified
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.iptables import KernelBusyError, KernelError, UnknownContentError
from fwguardd.values import dataclass
from fwguardd.wording import counted, local_time_of_day

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fwguardd.enforce.state import InForce, State
    from fwguardd.events import Emit
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.log_limits import Suppressed
    from fwguardd.ruleset.losses import Loss
    from fwguardd.ruleset.model import Finding
    from fwguardd.store.model import PendingConfirmation

LOAD_ERRORS = (UndoneError, UndoFailedError, UndoDelayedError, KernelError)
"""What putting a ruleset in force may raise; `load_failed` reports it."""

MOST_SHOWN = 20
"""Findings or differences that one event lists."""

LARGEST_REPORT = 4096
"""Bytes that are read of the boot loader's report."""


def report_written(context: Context, state: State, new: InForce, written: Applied | Unverified, where: str) -> State:
    """Report a ruleset that was written, and whether it was verified. ``state`` is the state with it in force."""
    if isinstance(written, Unverified):
        return report_unverified(context, state, UnverifiedState.WRITTEN, written.reason)
    kind, what = events.APPLIED, f"is in force: {counted(new.rule_count, 'rule')}"
    if state.kernel_state is not KernelState.IN_FORCE:  # Open, or the emergency set.
        kind, what = events.urgent(events.APPLIED), f"is loaded: the state is {state.kernel_state.value}"
    context.emit(
        kind,
        f"revision {new.revision} {what} {where}",
        revision=new.revision,
        rules=new.rule_count,
        cause=new.cause,
        changes=len(written.changes),
        difference=listed(written.changes),
        state=state.kernel_state.value,
    )
    return state


def report_pending(context: Context, pending: PendingConfirmation) -> None:
    """Report that a revision waits to be confirmed."""
    comes_back = "what was loaded before comes back"
    if pending.back_to is not None:
        comes_back = f"revision {pending.back_to} comes back"
    until = local_time_of_day(pending.wall_deadline)
    message = (
        f"revision {pending.number} is undone at {until} unless it is confirmed, and {comes_back}; "
        "to keep it: fwguardctl confirm"
    )
    context.emit(events.PENDING, message, revision=pending.number)


def report_drift(
    context: Context,
    in_force: InForce,
    drift: Sequence[Difference],
    authors: Authors,
    action: str = "",
    lost: Sequence[Loss] = (),
) -> None:
    """Report drift, with the processes that caused it if they are known. ``action`` is what is done about it, if that
    is not what the settings say. ``lost`` is what other programs have lost with it."""
    if not action:
        action = "it will be repaired"
        if not context.repair:
            action = f"it is left alone: {context.why_not}"
    author = ""
    if authors:
        author = f"; changed by {authors}"
    places = counted(len(drift), "place")
    losses = "".join(f". {loss}" for loss in lost)
    context.emit(
        events.DRIFT,
        f"the kernel differs from revision {in_force.revision} in {places}: {drift[0]}{author}; {action}{losses}",
        **authors.fields(),
        revision=in_force.revision,
        changes=len(drift),
        difference=listed(drift),
        lost=[rule for loss in lost for rule in loss.rules][:MOST_SHOWN],
        state=KernelState.DRIFTED.value,
    )


def report_repaired(context: Context, in_force: InForce, changes: int) -> None:
    """Report a repair that was verified: the kernel holds the revision."""
    message = f"{counted(changes, 'difference')} repaired; revision {in_force.revision} is in force again"
    context.emit(
        events.REPAIRED, message, revision=in_force.revision, changes=changes, state=KernelState.IN_FORCE.value
    )


def load_failed(context: Context, state: State, error: Exception) -> Failed | Broken:
    """Report a load that failed, and whether it was undone."""
    if isinstance(error, UndoFailedError):
        message = f"a load failed half-way and could not be undone: {error}"
        state = replace(state, unverified=UnverifiedState.UNDO, unverified_why=message)
        context.emit(events.BROKEN, message, revision=state.revision, state=state.kernel_state.value)
        return Broken(state, message)
    if isinstance(error, UndoDelayedError):
        state = recall_before_load(context, replace(state, touched=state.touched | touched_before(context)))
        state = report_unverified(context, state, UnverifiedState.UNDO, str(error))
        return Failed(state, str(error), retry=True)
    fact = "nothing was changed"
    if isinstance(error, UndoneError):
        fact = "the load failed, and what it had changed is undone"
    message = f"{fact}: {error}. {still_in_force(state)}"
    if isinstance(error, KernelError) and not isinstance(error, UnknownContentError):
        # Not even the first look succeeded, so whether that revision is still there is not known.
        state = report_unverified(context, state, state.unverified or UnverifiedState.LOOK, str(error))
        return pass_failed(context, state, message, retry=True)
    failed = pass_failed(context, state, message, retry=isinstance(error.__cause__, KernelBusyError))
    return replace(failed, wrote=isinstance(error, UndoneError))


def pass_failed(context: Context, state: State, reason: str, *, retry: bool) -> Failed:
    """Report a pass that failed for a reason that is not in the files."""
    files = state.files().state.value
    context.emit(events.APPLY_FAILED, reason, revision=state.revision, state=state.kernel_state.value, files=files)
    return Failed(state, reason, retry)


def listed(items: Sequence[Finding] | Sequence[Difference]) -> list[str]:
    """What one event lists, and how much it leaves out."""
    texts = [str(item) for item in items[:MOST_SHOWN]]
    if len(items) > MOST_SHOWN:
        texts.append(f"… and {len(items) - MOST_SHOWN} more")
    return texts


_UNVERIFIED = {
    UnverifiedState.LOOK: "It is not known whether the kernel still holds {revision}",
    UnverifiedState.WRITTEN: "{revision} was loaded without an error, but could not be verified",
    UnverifiedState.UNDO: "A load failed, and its undo could not be verified; {revision} is restored as soon as the "
    "kernel can be read",
    UnverifiedState.HIDDEN: "It is not known whether the kernel still holds {revision}, and nothing is repaired",
}
_RETRIED = "fwguardd tries again until the kernel can be read"
_NEXT_STEPS = {UnverifiedState.HIDDEN: "Remove the rule: nft -a list ruleset shows it, nft delete rule removes it"}


def report_unverified(
    context: Context, state: State, unverified: UnverifiedState, reason: str, authors: Authors = NO_AUTHORS
) -> State:
    """The state in which the kernel could not be verified; reports it unless it was reported already."""
    if state.unverified is unverified:
        return replace(state, unverified_why=reason)
    kind = events.UNVERIFIED
    if unverified is UnverifiedState.HIDDEN:
        kind = events.HIDDEN
    revision = "the earlier ruleset"
    if state.in_force is not None:
        revision = f"revision {state.revision}"
    because = ""
    if authors:
        because = f", because of changes by {authors}"
    what = _UNVERIFIED[unverified].format(revision=revision)
    message = f"{what[0].upper()}{what[1:]}: {reason}{because}. {_NEXT_STEPS.get(unverified, _RETRIED)}"
    state = replace(state, unverified=unverified, unverified_why=reason)
    if state.is_emergency or state.is_open:
        kind = events.urgent(kind)
        message = f"{message}. The state is {state.measured()}"
    context.emit(
        kind, message, revision=state.revision, reason=reason, state=state.kernel_state.value, **authors.fields()
    )
    return state


def report_verified(context: Context, state: State, *, as_wanted: bool) -> State:
    """The state in which the kernel could be compared again; reports it where it holds what it should."""
    if state.unverified is None:
        return state
    state = replace(state, unverified=None, unverified_why="")
    if as_wanted and state.in_force is not None:
        message = f"the kernel could be read again, and holds revision {state.revision}"
        context.emit(events.VERIFIED, message, revision=state.revision, state=state.kernel_state.value)
    return state


_EMERGENCY_OUTCOMES = ("emergency", "minimal")
"""Outcomes of the boot loader with which the host is closed, but for ssh, DHCP and little else."""


@dataclass(frozen=True, slots=True)
class BootReport:
    """What the boot loader put in force: the outcome, the revision, and why it is not that of the last revision.

    ``over``: the revision came in force since, so that an emergency is over. Rules that had ended at the time ``when``,
    in seconds since 1970, were left out; 0 where it is not known.
    """

    outcome: str
    revision: str
    reason: str
    over: bool
    when: float = 0.0

    @property
    def emergency(self) -> str:
        """Why the emergency set, or the minimal set in its place, is loaded; "" if it is not, or not any more."""
        if self.outcome not in _EMERGENCY_OUTCOMES or self.over:
            return ""
        return f"loaded at boot: {self.reason or 'the boot loader gave no reason'}"

    @property
    def problem(self) -> str:
        """What was loaded in place of the revision, in one sentence; "" if nothing was, or that is over."""
        if self.outcome == "revision" or self.over:
            return ""
        return self.message

    @property
    def message(self) -> str:
        """What the boot loader put in force, in one sentence."""
        reason = self.reason or "the boot loader gave no reason"
        if self.outcome == "revision":
            return f"at boot revision {self.revision} was in force before the network"
        if self.outcome in _EMERGENCY_OUTCOMES:
            return f"at boot the {self.outcome} set was put in force: {reason}"
        return f"at boot no rules could be loaded for IPv4, for IPv6, or for both: {reason}"


def read_boot_report(path: Path) -> BootReport | None:
    """What the boot loader reported in this file; None if there is no file."""
    try:
        with path.open("rb") as file:
            fields = parse_report(file.read(LARGEST_REPORT).decode("utf-8", "replace"))
    except OSError:
        return None
    outcome, revision, reason = (fields.get(name, "") for name in ("outcome", "revision", "reason"))
    return BootReport(outcome, revision, reason, "over" in fields, _seconds(fields.get("when", "")))


def _seconds(text: str) -> float:
    """Seconds that a shell script has written; 0 for anything else."""
    if text.isdecimal():
        return float(text)
    return 0.0


def after_boot(path: Path, state: State) -> State:
    """The state with what the boot loader reported in this file to have loaded, if that is not the revision."""
    report = read_boot_report(path)
    if report is None or state.is_open:
        return state
    if report.emergency and state.unverified is UnverifiedState.UNDO and state.interrupted is None:
        state = replace(state, unverified=None, unverified_why="")  # A rollback that had loaded nothing yet.
    return replace(_without_ended_at_boot(state, report), emergency=report.emergency)


def _without_ended_at_boot(state: State, report: BootReport) -> State:
    """The state without the rules that the boot loader has left out of the revision."""
    in_force = state.in_force
    if in_force is None or report.revision != str(in_force.revision):
        return state
    return replace(state, in_force=in_force.without_ended(report.when))


def end_emergency(path: Path, before: State, after: State) -> None:
    """Note in the boot loader's report that what it could not load has come in force since, once that is so.

    A failure only costs a later start a look at the kernel.
    """
    came = after.kernel_state is KernelState.IN_FORCE is not before.kernel_state
    if not came and (after.emergency or not before.emergency):
        return
    report = read_boot_report(path)
    if report is None or not report.problem:
        return
    with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
        file.write(f"over={int(time.time())}\n")


def report_suppressed(emit: Emit, found: Suppressed, name: str, meaning: str) -> None:
    """Report log lines that the limit of a rule has suppressed. ``name`` and ``meaning`` are those of its prefix."""
    rule, fields = found.rule, {"name": name, "meaning": meaning}
    if found.origin is not None:
        fields["rule"] = str(found.origin)
    emit(
        events.DENIALS_SUPPRESSED, found.sentence, prefix=rule.prefix, family=rule.family, place=rule.place,
        count=found.count, reached=found.reached, logged=found.logged, **fields,
    )  # fmt: skip


def report_boot(path: Path, emit: Emit) -> None:
    """Emit what the boot loader reported in this file; nothing if there is no file."""
    report = read_boot_report(path)
    if report is None:
        return
    kind, state = events.BOOT_REPORT, ""
    if report.emergency:
        kind, state = events.urgent(kind), KernelState.EMERGENCY.value
    elif report.problem:
        kind, state = events.urgent(kind), KernelState.UNVERIFIED.value
    emit(kind, report.message, outcome=report.outcome, revision=report.revision, reason=report.reason, state=state)


def parse_report(text: str) -> Mapping[str, str]:
    """The lines of the form ``key=value``; others are ignored."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.isidentifier():
            fields[key] = value
    return fields
