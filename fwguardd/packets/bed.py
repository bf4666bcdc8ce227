"""What a bed is to those who send packets through it: so that pure code needs no kernel.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.packets.model import Journey, Packet, Undecided


class Bed(Protocol):
    """A ruleset of both families, loaded in a namespace that has the interfaces, addresses and routes of a host."""

    def send(self, packets: Sequence[Packet]) -> list[Journey | Undecided]:
        """What the kernel did with each packet, in the order of the packets.

        Every packet is sent as if it were the only one: none sees what an earlier one left behind in the connection
        table. Raises `fwguardd.kernel.namespaces.NamespaceError`.
        """
        ...
