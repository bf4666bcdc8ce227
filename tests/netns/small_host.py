"""The files by which a host with one process describes its ssh sessions, as `kernel.ssh_sessions` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def small_host(root: Path) -> Path:
    """What a host with one process says of its ssh sessions: this one's processes are others in each trial."""
    for name, text in {"proc/7/comm": "sshd\n", "etc/ssh/sshd_config": "Port 2222\n"}.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    (root / "proc/7/fd").mkdir()
    (root / "proc/7/fd/3").symlink_to("socket:[1]")
    (root / "proc/net").symlink_to("/proc/thread-self/net")
    return root
