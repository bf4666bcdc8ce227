"""Beds for the verbs that send packets: the rules, in a namespace with the network of this host or of a file."""

from __future__ import annotations

import contextlib
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.ctl.offline_verbs import chosen_settings
from fwguardd.ctl.policy_run import host_of
from fwguardd.kernel.bed import Beds
from fwguardd.kernel.iptables import find_tool
from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.packets.host_routes import HostRoutes, host_routes
from fwguardd.values import dataclass

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from fwguardd.kernel.ipset_copies import Copy
    from fwguardd.kernel.iptables import Tool
    from fwguardd.packets.bed import Bed
    from fwguardd.packets.host import Host
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]


@dataclass(frozen=True, slots=True)
class HostBeds:
    """Beds with the network of one host, in namespaces from one pool. ``lacking`` is what of that network a bed could
    not have, in words; ``sets`` are sets that take the place of those of this host."""

    host: Host
    tool: Tool
    pool: NamespacePool
    lacking: dict[str, None] = field(default_factory=dict)
    sets: Mapping[str, Copy] = field(default_factory=dict)

    def with_sets(self, sets: Mapping[str, Copy]) -> HostBeds:
        """The same beds with the sets of set files, which need not be on this host."""
        return replace(self, sets=sets)

    @property
    def routes(self) -> HostRoutes:
        """The addresses and routes of the host."""
        return host_routes(self.host)

    @contextlib.contextmanager
    def open(self, rulesets: Rulesets) -> Iterator[Bed]:
        """A bed with these rules. Raises NamespaceError."""
        with Beds(self.tool.backend.value, self.pool, self.sets).prove(rulesets, self.host) as bed:
            self.lacking.update(dict.fromkeys(bed.left_out))
            yield bed

    def notes(self) -> tuple[str, ...]:
        """What of the network was left out, as sentences."""
        return tuple(f"the network namespace lacks a part of this host's network: {words}" for words in self.lacking)


@contextlib.contextmanager
def beds_of(options: argparse.Namespace) -> Iterator[HostBeds]:
    """Beds for the host and the iptables that the command line names, until the verb ends.

    Raises SettingsError, ToolMissingError, HostFileError and NamespaceError.
    """
    tool = find_tool(chosen_settings(options).backend)
    with beds_with(tool, getattr(options, "host", None)) as beds:
        yield beds


@contextlib.contextmanager
def beds_with(tool: Tool, file: Path | None = None) -> Iterator[HostBeds]:
    """Beds for this host, or for the one that a file describes. Raises HostFileError and NamespaceError."""
    pool = NamespacePool(for_beds=True)
    try:
        pool.refill()
        yield HostBeds(host_of(file), tool, pool)
    finally:
        pool.close()


def add_host(parser: argparse.ArgumentParser) -> None:
    """Add --host."""
    parser.add_argument(
        "--host", type=Path, metavar="FILE", help="the network of another host, as fwguardctl host prints it"
    )
