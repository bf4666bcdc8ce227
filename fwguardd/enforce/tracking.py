"""Connections that exist go on when the first rules are loaded that ask for the state of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd import events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.enforce.context import Context
    from fwguardd.enforce.look import Look
    from fwguardd.ruleset.model import Family, Ruleset

_STATES = ("--ctstate ", "--state ")
"""Options of the matches conntrack and state (iptables-extensions(8))."""


def track_before(context: Context, look: Look) -> None:
    """Have the kernel track the connections that exist, if it holds no rule that needs that yet and gets one now.

    Where that fails it is reported, and the load goes on: `fwguardd.kernel.live_connections` says what is lost.
    """
    if not asks_for_states(look.wanted) or asks_for_states(look.live):
        return
    try:
        context.track_connections()
    except (OSError, MemoryError) as error:
        _report(context, getattr(error, "strerror", None) or type(error).__name__)


def _report(context: Context, reason: str) -> None:
    message = (
        f"connections that exist could not be entered in the kernel's connection table: {reason}. Rules for "
        "ESTABLISHED accept such a connection once its other end has sent a packet; connect again where it hangs"
    )
    context.emit(events.UNTRACKED, message, reason=reason)


def asks_for_states(rulesets: Mapping[Family, Ruleset]) -> bool:
    """Whether a rule matches by the state of the connection."""
    for ruleset in rulesets.values():
        for _, chain in ruleset.chains():
            if any(option in rule.text for rule in chain.rules for option in _STATES):
                return True
    return False
