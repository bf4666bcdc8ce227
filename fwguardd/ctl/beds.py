"""Beds for the verbs that send packets: the rules, in a namespace with the network of this host or of a file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fwguardd.ctl.offline_verbs import chosen_settings
from fwguardd.errors import ReportedError
from fwguardd.kernel.bed import Beds
from fwguardd.kernel.host_network import read_host
from fwguardd.kernel.iptables import find_tool
from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.packets.host import Host
from fwguardd.packets.host_routes import HostRoutes, host_routes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from fwguardd.kernel.iptables import Tool
    from fwguardd.packets.bed import Bed
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]


class HostUnreadableError(ReportedError):
    """The network of the host cannot be read."""


@dataclass(frozen=True, slots=True)
class HostBeds:
    """Beds with the network of one host, in namespaces from one pool."""

    host: Host
    tool: Tool
    pool: NamespacePool

    @property
    def routes(self) -> HostRoutes:
        """The addresses and routes of the host."""
        return host_routes(self.host)

    @contextlib.contextmanager
    def open(self, rulesets: Rulesets) -> Iterator[Bed]:
        """A bed with these rules. Raises NamespaceError."""
        with Beds(self.tool.backend.value, self.pool).prove(rulesets, self.host) as bed:
            yield bed


@contextlib.contextmanager
def beds_of(options: argparse.Namespace) -> Iterator[HostBeds]:
    """Beds for the host and the iptables that the command line names, until the verb ends.

    Raises SettingsError, ToolMissingError, HostUnreadableError and NamespaceError.
    """
    tool = find_tool(chosen_settings(options).backend)
    with beds_with(tool, getattr(options, "host", None)) as beds:
        yield beds


@contextlib.contextmanager
def beds_with(tool: Tool, file: Path | None = None) -> Iterator[HostBeds]:
    """Beds for this host, or for the one that a file describes. Raises HostUnreadableError and NamespaceError."""
    pool = NamespacePool()
    try:
        pool.refill()
        yield HostBeds(_host(file), tool, pool)
    finally:
        pool.close()


def _host(file: Path | None) -> Host:
    try:
        if file is not None:
            return Host.of(yaml.safe_load(file.read_bytes()))
        return read_host()
    except OSError as error:
        raise HostUnreadableError(f"the network of {file or 'this host'} cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise HostUnreadableError(f"{file}: {' '.join(str(error).split())}") from error


def add_host(parser: argparse.ArgumentParser) -> None:
    """Add --host."""
    parser.add_argument(
        "--host", type=Path, metavar="FILE", help="the network of another host, as fwguardctl host prints it"
    )
