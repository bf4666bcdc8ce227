"""What this host is like, as far as it may get in the way of a guarded firewall. Files are read, nothing is changed.

Every function takes the directory that stands for ``/``, and passes over what is not there or may not be read: a host
without systemd, ufw or WireGuard has nothing to tell of them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.kernel.processes import PATH, program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SLASH = Path("/")

SERVICES = ("ufw", "firewalld", "nftables", "netfilter-persistent", "iptables", "ferm", "shorewall", "shorewall6")
"""Services that load rules at boot or later, by the names of their units."""

_UNIT_FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_POST_UP = re.compile(r"^[ \t]*Post(?:Up)[ \t]*=[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_ADDITION = re.compile(
    r"(ip6?tables)(?:[ \t]+-w(?:[ \t]+[0-9]+)?)?(?:[ \t]+-t[ \t]+([a-z]+))?[ \t]+-[AI][ \t]+([A-Za-z0-9_-]+)"
    r"(?:[ \t]+[0-9]+)?[ \t]+([^;&|]+)"
)


@dataclass(frozen=True, slots=True)
class Conntrack:
    """The connection table: how many connections it holds, how many it can, and after how many seconds it forgets one
    that is established and silent (Documentation/networking/nf_conntrack-sysctl.rst)."""

    count: int
    most: int
    established: int


@dataclass(frozen=True, slots=True)
class PostUp:
    """A rule that wg-quick(8) adds because somebody wrote so into its configuration."""

    file: str
    program: str
    table: str
    chain: str
    text: str


def enabled_services(root: Path = SLASH) -> tuple[str, ...]:
    """The services among `SERVICES` that boot starts: another unit wants them (systemctl(1), "is-enabled")."""
    wanted = {
        link.name.removesuffix(".service")
        for folder in _UNIT_FOLDERS
        for pattern in ("*.wants/*.service", "*.requires/*.service")
        for link in (root / folder).glob(pattern)
    }
    masked = {name for name in SERVICES if os.path.realpath(root / _UNIT_FOLDERS[0] / f"{name}.service") == "/dev/null"}
    enabled = [name for name in SERVICES if name in wanted - masked]
    if "ufw" in enabled and not re.search(r"(?m)^ENABLED=yes", _read(root / "etc/ufw/ufw.conf")):
        enabled.remove("ufw")  # Its unit is always enabled, and does nothing until "ufw enable".
    return tuple(enabled)


def flushes_at_start(root: Path = SLASH) -> bool:
    """Whether nftables.service empties all of nf_tables when it starts, the tables of iptables-nft included."""
    return bool(re.search(r"(?m)^[ \t]*flush[ \t]+ruleset\b", _read(root / "etc/nftables.conf")))


def ipv6_switched_off(root: Path = SLASH) -> str:
    """Why there is no IPv6 on this host: "boot" for the kernel's command line, "sysctl" for all interfaces; else ""."""
    if not (root / "proc/sys/net/ipv6").is_dir():
        return "boot"
    return "sysctl" if _read(root / "proc/sys/net/ipv6/conf/all/disable_ipv6").strip() == "1" else ""


def conntrack(root: Path = SLASH) -> Conntrack | None:
    """The connection table of this network namespace; None where there is none yet."""
    folder = root / "proc/sys/net/netfilter"
    numbers = [_read(folder / f"nf_conntrack_{name}").strip() for name in ("count", "max", "tcp_timeout_established")]
    return Conntrack(*map(int, numbers)) if all(number.isdigit() for number in numbers) else None


def post_up_rules(root: Path = SLASH) -> tuple[PostUp, ...]:
    """The rules of iptables that wg-quick adds by PostUp lines."""
    return tuple(rule for path in sorted((root / "etc/wireguard").glob("*.conf")) for rule in _post_ups(path))


def missing_programs(backend: str, folders: Iterable[str] = PATH.split(":")) -> tuple[str, ...]:
    """The programs of a backend ("nft", "legacy") that are not installed."""
    folders = tuple(folders)
    names = [program(backend, family, verb) for family in (4, 6) for verb in ("save", "restore")]
    return tuple(name for name in names if not any(os.access(f"{folder}/{name}", os.X_OK) for folder in folders))


def has_legacy(release: str, root: Path = SLASH) -> bool:
    """Whether the kernel has legacy iptables, built in, loaded, or as a module that can be."""
    if (root / "proc/thread-self/net/ip_tables_names").exists():
        return True
    folder = root / "lib/modules" / release
    return any("/ip_tables.ko" in _read(folder / name) for name in ("modules.dep", "modules.builtin"))


def _post_ups(path: Path) -> Iterator[PostUp]:
    for line in _POST_UP.findall(_read(path)):
        for name, table, chain, text in _ADDITION.findall(line.replace("%i", path.stem)):
            yield PostUp(str(path), name, table or "filter", chain, text.strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
