"""Other programs that load a firewall, in the version of the distribution, each in a place of its own.

Their packages are downloaded and unpacked into a folder, not installed: two of them exclude each other, and nothing of
the machine changes.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench.sizes import rules as of
from tests.bench.sizes.place import ROOT, Place, PlaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.bench.sizes.rules import Rules

CACHE: Final = ROOT / ".venv" / "peers"
"""Where the unpacked packages are kept: where no checkout is changed."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A program: its packages, how it is set up once, its files for some rules, and the shell commands that load rules
    at boot and after a change. ``largest`` is the size beyond which it takes minutes."""

    name: str
    packages: tuple[str, ...]
    files: Callable[[Rules], Mapping[str, str]]
    load: str
    boot: str
    setup: str = ""
    largest: int = 50_000


_UFW: Final = """
cp -n /usr/share/ufw/iptables/*.rules /etc/ufw/
touch /etc/ufw/user6.rules; cp /usr/share/ufw/iptables/user6.rules /etc/ufw/
cp -n /usr/share/ufw/ufw.conf /etc/ufw/ 2>/dev/null; printf 'ENABLED=yes\\nLOGLEVEL=off\\n' >/etc/ufw/ufw.conf
"""
# What the packages' own scripts would do, and what makes the program use nf_tables.
_FERM: Final = "rm -f /usr/sbin/*tables-legacy*"
_FIREWALLD: Final = """
cd /usr/share/polkit-1/actions && cp *FirewallD1.server.policy.choice org.fedoraproject.FirewallD1.policy || exit
sed -i 's/^FirewallBackend=.*/FirewallBackend=BACKEND/' /etc/firewalld/firewalld.conf
mkdir -p /run/dbus && dbus-daemon --system --fork >/dev/null 2>&1
"""
_FIREWALLD_BOOT: Final = """
pid=$(cat /run/firewalld.pid 2>/dev/null) && kill "$pid" && while [ -d "/proc/$pid" ]; do sleep 0.01; done
firewalld --nofork >/dev/null 2>&1 & echo $! >/run/firewalld.pid
for _ in $(seq 500); do firewall-cmd --state >/dev/null 2>&1 && exit; kill -0 $! || exit; sleep 0.01; done; exit 1
"""
_SHOREWALL: Final = """
cd /etc/shorewall && cp -n /usr/share/shorewall/configfiles/shorewall.conf . 2>/dev/null
sed -i 's/^STARTUP_ENABLED=.*/STARTUP_ENABLED=Yes/; s/^\\(LOGFILE\\|STARTUP_LOG\\)=.*/\\1=/' shorewall.conf
printf 'fw firewall\\nnet ipv4\\n' >zones; printf '?FORMAT 2\\nnet dummy0 -\\n' >interfaces
printf '$FW net ACCEPT\\nnet all DROP\\nall all REJECT\\n' >policy; mkdir -p /var/lib/shorewall
"""


def _firewalld(backend: str, largest: int) -> Peer:
    setup = _FIREWALLD.replace("BACKEND", backend)
    names = ("firewalld",)
    files, load = of.firewalld_files, "firewall-cmd --reload"
    return Peer(f"firewalld, {backend}", names, files, load, _FIREWALLD_BOOT, setup, largest)


PEERS: Final = (
    Peer(
        "netfilter-persistent",
        ("netfilter-persistent", "iptables-persistent"),
        of.persistent_files,
        "netfilter-persistent reload",
        "netfilter-persistent start",
    ),
    Peer("ferm", ("ferm",), of.ferm_files, "ferm /etc/ferm/ferm.conf", "ferm /etc/ferm/ferm.conf", _FERM),
    Peer("ufw", ("ufw",), of.ufw_files, "ufw reload", "/usr/lib/ufw/ufw-init start", _UFW, 10_000),
    _firewalld("nftables", 1_000),
    _firewalld("iptables", 1_000),
    Peer("shorewall", ("shorewall",), of.shorewall_files, "shorewall reload", "shorewall start", _SHOREWALL, 10_000),
)


class Loader:
    """A peer in its place."""

    def __init__(self, peer: Peer, place: Place) -> None:
        self.peer, self._place = peer, place
        if peer.setup:
            place.run("sh", "-c", peer.setup)

    def write(self, rules: Rules) -> None:
        """Put the files for these rules in place."""
        self._place.write(self.peer.files(rules))

    def load(self) -> float:
        """Load them as after a change; the seconds that it took."""
        return self._place.run("sh", "-c", self.peer.load)

    def boot(self) -> float:
        """Load them into an empty kernel; the seconds that it took."""
        return self._place.run("sh", "-c", self.peer.boot)

    def close(self) -> None:
        """End what it started."""
        stop = 'for name in /run/firewalld.pid /run/dbus/pid; do [ ! -e $name ] || kill "$(cat $name)" || :; done'
        self._place.run("sh", "-c", stop)


def unpacked(*packages: str) -> Path:
    """The folder that these packages are unpacked in. Raises PlaceError where they cannot be had."""
    root = CACHE / packages[0]
    if (root / "complete").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    archives = root / "archives"
    (archives / "partial").mkdir(parents=True)
    apt = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "--download-only"]
    _call([*apt, "-o", f"Dir::Cache::archives={archives}", *packages])
    for package in sorted(archives.glob("*.deb")):
        _call(["dpkg", "-x", str(package), str(root)])
    for name in ("lib", "sbin", "bin"):
        if (root / name).exists():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(archives)
    (root / "complete").touch()
    return root


def _call(argv: list[str]) -> None:
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise PlaceError(f"{' '.join(argv)}: {ended.stderr[-300:]}")
