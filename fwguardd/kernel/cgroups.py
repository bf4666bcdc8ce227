"""The control group of a process: the systemd unit or the container that it runs in, and whether that is a service.

The texts are those of /proc/PID/cgroup (cgroups(7)): version 1 has a line for each hierarchy, version 2 one line, and a
hybrid has both.

This module is pure.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from fwguardd.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNIT_ENDINGS: Final = (".service", ".scope", ".socket", ".mount", ".swap")
"""The systemd units that can have processes (systemd.unit(5)); a slice only groups them."""

_ID: Final = r"(?P<id>[0-9a-f]{12})[0-9a-f]{52}"
"""A container's id, of which the tools of the engines print the first 12 digits."""
_SCOPE: Final = pattern(rf"(?:.*[:-])?(?P<engine>docker|libpod|libpod-conmon|cri-containerd|crio)[:-]{_ID}(?:\.scope)?")
"""The name of a container's scope under Docker, Podman, containerd and CRI-O, with the systemd or cgroupfs driver."""
_BARE: Final = pattern(_ID)
_LXC: Final = pattern(r"lxc\.payload\.(?P<name>.+)")
_ENGINES: Final = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-conmon": "podman",
    "cri-containerd": "containerd",
    "crio": "cri-o",
    "kubepods": "kubernetes",
}
"""The name of the engine, by the word in the cgroup's path."""

LOGIN_SERVICES: Final = (
    *("ssh", "sshd", "dropbear", "telnet", "getty", "serial-getty", "console-getty", "container-getty"),
    *("rescue", "emergency", "debug-shell", "cockpit", "cockpit-session", "shellinabox", "ttyd", "xrdp-sesman"),
)
"""Services whose child processes are the shells of people, by the part of the name before "@" and ".service"."""
_LOGIN: Final = pattern(
    rf"user\.slice|user-\d+\.slice|user@\d+\.service|(?:{'|'.join(LOGIN_SERVICES)})(?:@.*)?\.service"
)
"""A component of a path below which all belongs to login users."""

_PAYLOAD: Final = "payload"
"""The component below which the units are those of a systemd-nspawn container, not the host's."""


class ProcessKind(StrEnum):
    """What kind of process it is, as far as it decides whether rules that it adds are kept."""

    SERVICE = "service"
    """In a service of the system, or in a container that does not belong to a login user."""
    OTHER = "other"
    """Anywhere else: in a login session or a user's own service, in a scope, or outside of all units."""
    UNKNOWN = "unknown"
    """It could not be read."""


def unit_of(cgroup_text: str) -> str | None:
    """The systemd unit or container in a /proc/PID/cgroup text (cgroups(7), both versions); None if there is none.

    Examples: `docker.service`, `session-3.scope`, `container docker 0123456789ab`, `container lxc web`. Of nested
    containers it is the outermost, which is the one that the host knows; of units the innermost.
    """
    paths = _cgroup_paths(cgroup_text)
    for find in (_container, _unit):
        for path in paths:
            name = find(path)
            if name is not None:
                return name
    return None


def kind_of(cgroup_text: str) -> ProcessKind:
    """What kind a running process is, from its /proc/PID/cgroup; `ProcessKind.UNKNOWN` if the text is empty.

    A login session counts before all else, in whichever hierarchy it is. Services of the user's own service manager
    (user@1000.service) are the user's. So is a service that only gives people a shell (`LOGIN_SERVICES`): without
    pam_systemd(8) the shell stays in it. A scope of the system is OTHER, because systemd-run --scope moves a shell's
    command there; the scope of a container is a service's, because an engine starts it.
    """
    if not cgroup_text.strip():
        return ProcessKind.UNKNOWN
    paths = _cgroup_paths(cgroup_text)
    if any(_belongs_to_login(path) for path in paths):
        return ProcessKind.OTHER
    if any(_belongs_to_service(path) for path in paths):
        return ProcessKind.SERVICE
    return ProcessKind.OTHER


def _belongs_to_service(path: Sequence[str]) -> bool:
    unit = _unit(path)
    return _container(path) is not None or (unit is not None and unit.endswith(".service"))


def _belongs_to_login(path: Sequence[str]) -> bool:
    """Whether a path leads through the slice of a login user, a user's service manager or a service with shells.

    What is below a container is the container's own, and can have any name.
    """
    for index, component in enumerate(path):
        if _LOGIN.fullmatch(component):
            return True
        if component == _PAYLOAD or _container_at(path, index) is not None:
            return False
    return False


def _cgroup_paths(cgroup_text: str) -> Sequence[Sequence[str]]:
    # Not splitlines(): the kernel keeps only "\n" out of a cgroup's name, and no other line separator.
    return [_cgroup_path(line) for line in cgroup_text.split("\n")]


def _cgroup_path(line: str) -> Sequence[str]:
    """The components of the path in a line `hierarchy:controllers:path`, outermost first."""
    path = line.split(":", 2)[-1].removesuffix(" (deleted)")
    return [component for component in path.split("/") if component]


def _container(path: Sequence[str]) -> str | None:
    for index in range(len(path)):
        name = _container_at(path, index)
        if name is not None:
            return name
    return None


def _container_at(path: Sequence[str], index: int) -> str | None:
    """The container that one component of a path names."""
    component = path[index]
    scope = _SCOPE.fullmatch(component)
    if scope is not None:
        return f"container {_ENGINES[scope['engine']]} {scope['id']}"
    bare = _BARE.fullmatch(component)
    if bare is not None:
        return f"container {_engine_of_path(path, index)}{bare['id']}"
    return _lxc_container_at(path, index)


def _lxc_container_at(path: Sequence[str], index: int) -> str | None:
    component = path[index]
    payload = _LXC.fullmatch(component)
    if payload is not None:
        return f"container lxc {payload['name']}"
    if component in {"lxc", "lxc.payload"} and index + 1 < len(path):
        return f"container lxc {path[index + 1]}"
    return None


def _engine_of_path(path: Sequence[str], index: int) -> str:
    """The engine and a blank, from the first component: /docker/ID, /kubepods/besteffort/podUID/ID. "" if unknown."""
    word = re.sub(r"[^a-z].*", "", path[0])
    if index == 0 or word not in _ENGINES:
        return ""
    return f"{_ENGINES[word]} "


def _unit(path: Sequence[str]) -> str | None:
    if _PAYLOAD in path:
        path = path[: path.index(_PAYLOAD)]
    for component in reversed(path):
        if component.endswith(_UNIT_ENDINGS):
            return component
    return None
