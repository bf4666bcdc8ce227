"""Another program that opens the firewall while a daemon guards it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.netns.crashing import Saved

SETTINGS: Final = "settle: 50ms\ndrift_interval: 1s\n"
"""Changes of legacy tables are found by the timer alone."""

OPENED: Final = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"


def flush(backend: str) -> None:
    """Another program opens the firewall, each family in one transaction."""
    for program in ("iptables", "ip6tables"):
        subprocess.run([f"{program}-{backend}-restore", "-w", "60"], input=OPENED, text=True, check=True)


def wait_for(saved: Saved, wanted: dict[str, list[str]]) -> None:
    """Wait until this is loaded, and nothing else."""
    wait_until(lambda: saved() == wanted, "the repair", pause=0.1)
