"""What the boot loader did before there was a daemon: its report, as an event.

What is said while the kernel cannot be looked at, and once it can be again.

On nf_tables iptables-save starts over whenever somebody commits while it reads (__nft_build_cache() in iptables'
nft-cache.c), so whoever writes without pause starves it. Then nothing is known to be wrong, and nothing is undone for
that: what was written last counts as in force, it is said once, and the kernel is looked at again when it is calm.

What iptables cannot express, such as some rules that nft made, hides the whole table: to load rules would destroy
it, so nothing is repaired, and that is said once too, with whoever made it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.state import State, UnverifiedState
from fwguardd.kernel.attribution import NO_AUTHORS, Authors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fwguardd.enforce.context import Context
    from fwguardd.events import Emit


LARGEST_REPORT = 4096


def report_boot(path: Path, emit: Emit) -> None:
    """Tell what the boot loader's report says; nothing where there is none."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_REPORT).decode("utf-8", "replace")
    except OSError:
        return
    said = parse_report(text)
    outcome = said.get("outcome", "")
    if outcome == "revision":
        message = f"at boot revision {said.get('revision')} was in force before the network"
    else:
        message = (
            f"at boot the {outcome or 'unknown'} set was put in force: {said.get('reason', 'no reason was given')}"
        )
    emit(events.BOOT_REPORT, message, outcome=outcome, revision=said.get("revision", ""), reason=said.get("reason", ""))


def parse_report(text: str) -> Mapping[str, str]:
    """``key=value`` lines; anything else is passed over."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, equals, value in pairs if equals and key.isidentifier()}


_WHAT = {
    UnverifiedState.LOOK: "Whether the kernel still holds {revision} is not known",
    UnverifiedState.WRITTEN: "{revision} was loaded without an error, but could not be verified",
    UnverifiedState.UNDO: "A load failed, and whether it left anything is not known; {revision} is brought back if so",
    UnverifiedState.HIDDEN: "Whether the kernel still holds {revision} is not known, and nothing is repaired",
}
_CALM = "The kernel is looked at again when it is calm"
_NEXT = {UnverifiedState.HIDDEN: "Remove it: nft -a list ruleset shows it, nft delete rule takes it away"}


def report_unverified(
    context: Context, state: State, unverified: UnverifiedState, reason: str, authors: Authors = NO_AUTHORS
) -> State:
    """Remember that the kernel could not be looked at, and say so, unless that was said already."""
    if state.unverified is not unverified:
        kind = events.HIDDEN if unverified is UnverifiedState.HIDDEN else events.UNVERIFIED
        number = state.in_force.revision if state.in_force else 0
        revision = f"revision {number}" if number else "what was before"
        what = _WHAT[unverified].format(revision=revision)
        by = f", because of changes by {authors}" if authors else ""
        message = f"{what[0].upper()}{what[1:]}: {reason}{by}. {_NEXT.get(unverified, _CALM)}"
        context.emit(kind, message, revision=number, reason=reason, **authors.fields())
    return replace(state, unverified=unverified)


def report_verified(context: Context, state: State, *, as_wanted: bool) -> State:
    """Forget that the kernel could not be looked at; where it holds what it should, say that."""
    if state.unverified is None:
        return state
    if as_wanted and state.in_force is not None:
        number = state.in_force.revision
        context.emit(
            events.VERIFIED, f"the kernel can be looked at again, and holds revision {number}", revision=number
        )
    return replace(state, unverified=None)
