"""Reads from files what on this host may interfere with fwguardd. Nothing is changed.

Every function takes the root directory as an argument. A file that does not exist or cannot be read counts as empty: a
host may lack systemd, ufw or WireGuard.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.kernel.processes import PATH, program
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SLASH = Path("/")

SERVICES = ("ufw", "firewalld", "nftables", "netfilter-persistent", "iptables", "ferm", "shorewall", "shorewall6")
"""Services that load rules at boot or later: the names of their units."""

_UNIT_FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_POST_UP = re.compile(r"^[ \t]*Post(?:Up)[ \t]*=[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_ADDITION = re.compile(
    r"(ip6?tables)(?:[ \t]+-w(?:[ \t]+[0-9]+)?)?(?:[ \t]+-t[ \t]+([a-z]+))?[ \t]+-[AI][ \t]+([A-Za-z0-9_-]+)"
    r"(?:[ \t]+[0-9]+)?[ \t]+([^;&|]+)"
)


@dataclass(frozen=True, slots=True)
class Conntrack:
    """The connection tracking table: its number of entries, its capacity, and the seconds after which it removes an
    established TCP connection without packets (Documentation/networking/nf_conntrack-sysctl.rst)."""

    count: int
    capacity: int
    established: int


@dataclass(frozen=True, slots=True)
class PostUp:
    """A rule that wg-quick(8) adds because of a PostUp line in its configuration."""

    file: str
    program: str
    table: str
    chain: str
    text: str


def enabled_services(root: Path = SLASH) -> tuple[str, ...]:
    """The services among `SERVICES` that are started at boot: another unit wants them (systemctl(1), "is-enabled")."""
    wanted = _wanted_services(root)
    return tuple(name for name in SERVICES if name in wanted and not _is_off(name, root))


def _is_off(service: str, root: Path) -> bool:
    """Whether an enabled service does nothing: its unit is masked, or is that of ufw before "ufw enable"."""
    if os.path.realpath(root / _UNIT_FOLDERS[0] / f"{service}.service") == "/dev/null":
        return True
    return service == "ufw" and not re.search(r"(?m)^ENABLED=yes", _read(root / "etc/ufw/ufw.conf"))


def _wanted_services(root: Path) -> set[str]:
    """The services that a link of systemd starts with another unit."""
    return {link.name.removesuffix(".service") for link in _links_to_services(root)}


def _links_to_services(root: Path) -> Iterator[Path]:
    for folder in _UNIT_FOLDERS:
        yield from (root / folder).glob("*.wants/*.service")
        yield from (root / folder).glob("*.requires/*.service")


def flushes_at_start(root: Path = SLASH) -> bool:
    """Whether nftables.service flushes all of nf_tables when it starts, the tables of iptables-nft too."""
    return bool(re.search(r"(?m)^[ \t]*flush[ \t]+ruleset\b", _read(root / "etc/nftables.conf")))


def ipv6_switched_off(root: Path = SLASH) -> str:
    """How IPv6 is disabled on this host: "boot" on the kernel's command line, "sysctl" for all interfaces; else ""."""
    if not (root / "proc/sys/net/ipv6").is_dir():
        return "boot"
    if _read(root / "proc/sys/net/ipv6/conf/all/disable_ipv6").strip() == "1":
        return "sysctl"
    return ""


def forwards(sysctl: str, root: Path = SLASH) -> bool:
    """Whether the kernel forwards packets in this network namespace, by the name of the switch; if it cannot be read,
    it counts as on."""
    return _read(root / "proc/sys" / sysctl.replace(".", "/")).strip() != "0"


def free_bytes(path: Path) -> int | None:
    """The bytes left on the file system of a directory for a user that is not root; None if it does not exist."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def newest_change(directory: Path) -> float:
    """When the newest file in a directory was written, in seconds since 1970; 0 for none."""
    newest = 0.0
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            newest = max(newest, path.stat().st_mtime)
    return newest


def conntrack(root: Path = SLASH) -> Conntrack | None:
    """The connection tracking table of this network namespace; None if the kernel module is not loaded."""
    numbers: list[int] = []
    for name in ("count", "max", "tcp_timeout_established"):
        text = _read(root / f"proc/sys/net/netfilter/nf_conntrack_{name}").strip()
        if not text.isdigit():
            return None
        numbers.append(int(text))
    return Conntrack(*numbers)


def post_up_rules(root: Path = SLASH) -> tuple[PostUp, ...]:
    """The rules that PostUp lines in the configuration of wg-quick add with iptables."""
    rules: list[PostUp] = []
    for path in sorted((root / "etc/wireguard").glob("*.conf")):
        rules += _post_ups(path)
    return tuple(rules)


def missing_programs(backend: str, folders: Iterable[str] = PATH.split(":")) -> tuple[str, ...]:
    """The programs of a backend ("nft", "legacy") that are not installed."""
    path = os.pathsep.join(folders)
    return tuple(name for name in _programs(backend) if shutil.which(name, path=path) is None)


def _programs(backend: str) -> Iterator[str]:
    for family in (4, 6):
        for verb in ("save", "restore"):
            yield program(backend, family, verb)


def has_legacy(release: str, root: Path = SLASH) -> bool:
    """Whether the kernel has legacy iptables: built in, loaded, or as a module."""
    if (root / "proc/thread-self/net/ip_tables_names").exists():
        return True
    modules = root / "lib/modules" / release
    return "/ip_tables.ko" in _read(modules / "modules.dep") + _read(modules / "modules.builtin")


def _post_ups(path: Path) -> Iterator[PostUp]:
    for line in _POST_UP.findall(_read(path)):
        for name, table, chain, text in _ADDITION.findall(line.replace("%i", path.stem)):
            yield PostUp(str(path), name, table or "filter", chain, text.strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
