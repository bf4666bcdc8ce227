"""Connections that exist go on when the first rules are loaded that ask for the state of a connection."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.enforce.context import Context
    from fwguardd.enforce.look import Look
    from fwguardd.ruleset.model import Family, Ruleset

_STATES = ("--ctstate ", "--state ")
"""Options of the matches conntrack and state (iptables-extensions(8))."""


def track_before(context: Context, look: Look) -> None:
    """Have the kernel track the connections that exist, if it holds no rule that needs that yet and gets one now.

    Where that fails nothing is lost but what is said in `fwguardd.kernel.live_connections`.
    """
    if asks_for_states(look.wanted) and not asks_for_states(look.live):
        with contextlib.suppress(OSError):
            context.track_connections()


def asks_for_states(rulesets: Mapping[Family, Ruleset]) -> bool:
    """Whether a rule matches by the state of the connection."""
    for ruleset in rulesets.values():
        for _, chain in ruleset.chains():
            if any(option in rule.text for rule in chain.rules for option in _STATES):
                return True
    return False
