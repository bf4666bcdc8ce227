"""Which rule has logged a packet: its prefix says so, and where rules share a prefix, the way of the packet.

This module is pure.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fwguardd.denials.aggregation import Flow
from fwguardd.denials.grammar import kernel_escaped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.denials.aggregation import Key
    from fwguardd.denials.model import Denial, Unparsed
    from fwguardd.denials.sentences import RuleOrigin

_WAYS: Final = {(True, False): "in", (False, True): "out", (True, True): "forward"}


class RulesInForce:
    """The rules in force that log. ``by_prefix`` has family and prefix → the place of the only rule with them;
    ``by_way`` has family, prefix and way (in, out, forward) → the place of the only rule that such a packet can meet.
    """

    def __init__(
        self,
        by_prefix: Mapping[tuple[str, str], RuleOrigin] = MappingProxyType({}),
        by_way: Mapping[tuple[str, str, str], RuleOrigin] = MappingProxyType({}),
    ) -> None:
        self._by_prefix, self._by_way = by_prefix, by_way
        self._spelled = {kernel_escaped(prefix.encode()): place for (_, prefix), place in by_prefix.items()}

    def of_denial(self, denial: Denial) -> RuleOrigin | None:
        """The rule that logged a packet; None if it is not known."""
        devices = denial.devices
        return self._find(denial.family.value, denial.watched.prefix, devices.incoming, devices.outgoing)

    def of_flow(self, key: Key) -> RuleOrigin | None:
        """The rule that logged the packets of a flow; None if it is not known."""
        if not isinstance(key, Flow) or not key.src:
            return None
        family = "ipv4"
        if ":" in key.src:
            family = "ipv6"
        return self._find(family, key.prefix, key.incoming, key.outgoing)

    def _find(self, family: str, prefix: str, incoming: str | None, outgoing: str | None) -> RuleOrigin | None:
        found = self._by_prefix.get((family, prefix))
        if found is None:
            way = _WAYS.get((bool(incoming), bool(outgoing)), "")
            found = self._by_way.get((family, prefix, way))
        return found

    def probable(self, unparsed: Unparsed) -> tuple[str, RuleOrigin] | None:
        """Of a line that cannot be parsed, the longest prefix of a rule with which it begins, if it is longer than the
        watched prefix; and that rule. The line then is a whole one of that rule, whose prefix is not watched."""
        found = self._longest_prefix_of(unparsed.text)
        if len(found) <= len(kernel_escaped(unparsed.watched.prefix.encode())):
            return None
        return found, self._spelled[found]

    def _longest_prefix_of(self, text: str) -> str:
        found = [prefix for prefix in self._spelled if text.startswith(prefix)]
        return max(found, key=len, default="")
