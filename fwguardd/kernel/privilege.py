"""The capabilities and namespaces of this process, and the locks that keep a second daemon from starting."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.kernel.xtables_lock import holder

if TYPE_CHECKING:
    from collections.abc import Iterator

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
"""Numbers of capabilities(7), linux/capability.h."""

LOCK = "lock"
"""The file in the state directory and in the runtime directory that the daemon locks (flock(2))."""


_CREDENTIALS = struct.Struct("=iII")
"""struct ucred: process, user, group."""

SOCKET = b"\0fwguardd"
"""The abstract socket that the daemon listens on (unix(7)). Such a name belongs to a network namespace, as rules do."""


class MissingPrivilegeError(Exception):
    """The process lacks a capability, or write access to its runtime directory."""


class RunningAlreadyError(Exception):
    """Another fwguardd is running, or the runtime directory cannot be used."""


def has_capability(number: int) -> bool:
    """Whether a capability is in this process's effective set (proc(5), CapEff)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def in_initial_user_namespace() -> bool:
    """Whether user ids are those of the host: the initial user namespace maps all of them (user_namespaces(7))."""
    with contextlib.suppress(OSError):
        return Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]
    return True


def local_group(name: str) -> int | None:
    """The id of a group of this host; None if /etc/group has none of that name.

    getgrnam(3) may query a directory server over the network, which would hang while the firewall blocks it.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/etc/group").read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 2:
                return int(fields[2])
    return None


def in_initial_network_namespace() -> bool:
    """Whether LOG rules in this network namespace write to the kernel log whatever nf_log_all_netns is set to.

    That sysctl exists only in the initial network namespace (netfilter_log_sysctl_init() in net/netfilter/nf_log.c).
    """
    sysctls = Path("/proc/sys/net/netfilter")
    return not sysctls.exists() or (sysctls / "nf_log_all_netns").exists()


def boot_id() -> str:
    """The id of this boot (random(4), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def kernel_release() -> str:
    """The release of the running kernel (uname(2))."""
    return os.uname().release


def require_privilege() -> None:
    """Raises MissingPrivilegeError without CAP_NET_ADMIN, which is needed to load rules."""
    if not has_capability(CAP_NET_ADMIN):
        raise MissingPrivilegeError(
            "the capability CAP_NET_ADMIN is missing: run it as root, or run: systemctl start fwguardd"
        )


@contextlib.contextmanager
def only_process(state_dir: Path, runtime_dir: Path, *, guarding: bool = False) -> Iterator[None]:
    """Be the only process that changes the firewall and the state directory.

    The lock is with the state, so that two daemons with different runtime directories are kept apart too. The one in
    the runtime directory is held besides: an earlier version holds only that, and fwguardd-boot.service looks for it.
    With ``guarding`` it is also the only one in its network namespace, where lock files were removed too. Raises
    RunningAlreadyError and MissingPrivilegeError.
    """
    with _locked_runtime_dir(runtime_dir), _locked_state_dir(state_dir), contextlib.ExitStack() as more:
        if guarding:
            more.enter_context(_only_guard())
        yield


@contextlib.contextmanager
def _only_guard() -> Iterator[None]:
    """Be the only process that guards this network namespace.

    Raises RunningAlreadyError. A process of another user may take the name, and keeps nothing from starting.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as name:
        try:
            name.bind(SOCKET)
            name.listen(0)
        except OSError as error:
            owner = _trusted_owner()
            if owner:
                message = f"another fwguardd (process {owner}) is running in this network namespace"
                raise RunningAlreadyError(message) from error
        yield


def _trusted_owner() -> int:
    """The process that has taken the name, if it runs as root or as this user (socket(7), SO_PEERCRED); else 0."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(SOCKET)
            credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return 0
    process, user, _ = _CREDENTIALS.unpack(credentials)
    return int(process) if user in (0, os.geteuid()) else 0


@contextlib.contextmanager
def _locked_state_dir(directory: Path) -> Iterator[None]:
    """Hold the lock of the state directory. Where no file can be made there, the store reports that, and goes on."""
    path = directory / LOCK
    try:
        fd = _existing_or_new(path)
    except OSError:
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise RunningAlreadyError(f"another fwguardd is running: {holder(path)} has locked {path}") from error
    try:
        yield
    finally:
        os.close(fd)


def _existing_or_new(path: Path) -> int:
    """A descriptor of the lock. Raises OSError."""
    # A frozen file system lets nothing be made, and an open(2) with O_CREAT waits, though the file is there.
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _open_lock(directory: Path) -> int:
    """A descriptor of the lock file. Raises RunningAlreadyError and MissingPrivilegeError."""
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise MissingPrivilegeError(f"cannot write to {directory}: {error.strerror}; run it as root") from error
    except OSError as error:
        raise RunningAlreadyError(f"cannot use {directory}: {error.strerror}") from error


@contextlib.contextmanager
def _locked_runtime_dir(directory: Path) -> Iterator[None]:
    """Hold the lock of the daemon's runtime directory. Raises RunningAlreadyError and MissingPrivilegeError."""
    fd = _open_lock(directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        process = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise RunningAlreadyError(
            f"another fwguardd (process {process or 'unknown'}) is running: it has locked {directory}/{LOCK}"
        ) from error
    try:
        with contextlib.suppress(OSError):  # A full disk takes no number; the lock holds without it.
            os.truncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)
