"""The command that lets a packet through, where there is one: in place of a rule to be written by hand.

This module is pure.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import ConnectionState, Direction
from fwguardd.ruleset.entries import entries_in

if TYPE_CHECKING:
    from fwguardd.packets.model import Packet, Step
    from fwguardd.packets.remedy import Remedy
    from fwguardd.ruleset.entries import Entry
    from fwguardd.ruleset.model import Origin

ALLOWED: Final = "60-allow.rules"
"""The file that ``fwguardctl allow`` writes."""

_CHAINS: Final = {Direction.INBOUND: "INPUT", Direction.OUTBOUND: "OUTPUT"}
_SERVICES: Final = frozenset({"tcp", "udp", "sctp"})


def command_to_remove(text: str, line: int) -> str:
    """The command that takes out the entry to which a line of a rule file belongs; "" where it belongs to none, or is
    about a whole set."""
    for entry in entries_in(text):
        if _is_about_addresses(entry) and 0 <= line - entry.line < entry.text.count("\n"):
            return f"fwguardctl remove {entry.command}"
    return ""


def _is_about_addresses(entry: Entry) -> bool:
    return "--match-set" not in entry.text


def command_to_allow(packet: Packet, deciding: Step, origin: Origin | None, remedy: Remedy | None) -> str:
    """The command that accepts such connections; "" where it would not, as behind a rule that drops them before.

    ``packet`` is the one that arrives, ``origin`` the place of the rule or policy that decided about it.
    """
    if _comes_after(deciding, origin) and _would_help(packet, remedy):
        port = f"{packet.destination_port}/{packet.protocol}"
        return shlex.join(["fwguardctl", "allow", port, *_peer(packet)])
    return ""


def _peer(packet: Packet) -> list[str]:
    if packet.direction is Direction.OUTBOUND:
        return ["--out", "--to", str(packet.destination)]
    return ["--from", str(packet.source)]


def _would_help(packet: Packet, remedy: Remedy | None) -> bool:
    """Whether one rule that accepts new connections to the port is all that is missing."""
    if remedy is None:
        return False
    places = [(one.table, one.chain) for one in remedy.additions]
    needed = (packet.protocol in _SERVICES, packet.state, remedy.proven, places)
    return needed == (True, ConnectionState.NEW, True, [("filter", _CHAINS.get(packet.direction))])


def _comes_after(deciding: Step, origin: Origin | None) -> bool:
    """Whether the policy decided, or a rule of a file behind the one that ``allow`` writes."""
    if deciding.position is None:
        return True
    return origin is not None and origin.path.rpartition("/")[2] > ALLOWED
