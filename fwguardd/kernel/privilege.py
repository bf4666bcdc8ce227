"""What this process may do, and that it is the only one that does it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
"""Numbers of capabilities(7), linux/capability.h."""


class MissingPrivilegeError(Exception):
    """The process lacks a capability, or may not write where it must."""


class RunningAlreadyError(Exception):
    """Another fwguardd guards this host, or the runtime directory cannot be used."""


def has_capability(number: int) -> bool:
    """Whether a capability is in this process's effective set (proc(5), CapEff)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def in_initial_user_namespace() -> bool:
    """Whether ids here are the machine's own: the initial user namespace maps all of them (user_namespaces(7))."""
    with contextlib.suppress(OSError):
        return Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]
    return True


def local_group(name: str) -> int | None:
    """The id of a group of this host; None if /etc/group has none of that name.

    getgrnam(3) may ask a directory server over the network, and that would hang just when the firewall is broken.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/etc/group").read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 2:
                return int(fields[2])
    return None


def in_initial_network_namespace() -> bool:
    """Whether LOG rules here reach the kernel log without further ado. Only there is the switch for the others, and
    whoever looks from another network namespace does not see it (netfilter_log_sysctl_init(), net/netfilter/nf_log.c).
    """
    switches = Path("/proc/sys/net/netfilter")
    return not switches.exists() or (switches / "nf_log_all_netns").exists()


def boot_id() -> str:
    """The id of this boot (random(4), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def kernel_release() -> str:
    """The release of the running kernel, as uname(2) tells it."""
    return os.uname().release


def require_privilege() -> None:
    """Raises MissingPrivilegeError without CAP_NET_ADMIN, which loading rules takes."""
    if not has_capability(CAP_NET_ADMIN):
        raise MissingPrivilegeError(
            "it needs the capability CAP_NET_ADMIN: start it as root, or with systemctl start fwguardd"
        )


@contextlib.contextmanager
def lock_runtime_dir(directory: Path) -> Iterator[None]:
    """Hold the lock that says: this directory's daemon runs. Raises RunningAlreadyError and MissingPrivilegeError."""
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise MissingPrivilegeError(f"{directory} cannot be written: {error.strerror}") from error
    except OSError as error:
        raise RunningAlreadyError(f"{directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        raise RunningAlreadyError(f"another fwguardd (process {holder or 'unknown'}) holds {directory}/lock") from error
    finally:
        os.close(fd)
