"""What is said while the kernel cannot be looked at, and once it can be again.

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
from fwguardd.enforce.memory import Memory, Unseen
from fwguardd.kernel.culprit import NOBODY, Culprits

if TYPE_CHECKING:
    from fwguardd.enforce.world import World

_WHAT = {
    Unseen.LOOK: "Whether the kernel still holds {revision} is not known",
    Unseen.WRITTEN: "{revision} was written, and every program said yes; whether it is still there is not known",
    Unseen.UNDO: "A load failed, and whether it left anything is not known; {revision} is brought back if so",
    Unseen.HIDDEN: "Whether the kernel still holds {revision} is not known, and nothing is repaired",
}
_CALM = "The kernel is looked at again when it is calm"
_NEXT = {Unseen.HIDDEN: "Remove it: nft -a list ruleset shows it, nft delete rule takes it away"}


def tell_unseen(world: World, memory: Memory, unseen: Unseen, reason: str, culprits: Culprits = NOBODY) -> Memory:
    """Remember that the kernel could not be looked at, and say so, unless that was said already."""
    if memory.unseen is not unseen:
        kind = events.HIDDEN if unseen is Unseen.HIDDEN else events.UNSEEN
        number = memory.in_force.revision if memory.in_force else 0
        revision = f"revision {number}" if number else "what was before"
        what = _WHAT[unseen].format(revision=revision)
        by = f", because of changes by {culprits}" if culprits else ""
        message = f"{what[0].upper()}{what[1:]}: {reason}{by}. {_NEXT.get(unseen, _CALM)}"
        world.emit(kind, message, revision=number, reason=reason, **culprits.fields())
    return replace(memory, unseen=unseen)


def tell_seen(world: World, memory: Memory, *, as_wanted: bool) -> Memory:
    """Forget that the kernel could not be looked at; where it holds what it should, say that."""
    if memory.unseen is None:
        return memory
    if as_wanted and memory.in_force is not None:
        number = memory.in_force.revision
        world.emit(events.SEEN, f"the kernel can be looked at again, and holds revision {number}", revision=number)
    return replace(memory, unseen=None)
