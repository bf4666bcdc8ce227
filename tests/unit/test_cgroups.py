"""Control groups of processes: whether a process belongs to a service of the host, from texts of real hosts."""

from __future__ import annotations

import pytest

from fwguardd.kernel.cgroups import LOGIN_SERVICES, ProcessKind, kind_of

ID = "0123456789ab" + "cdef" * 13
V1 = """\
12:pids:{0}
11:cpuset:/
10:memory:{0}
9:rdma:/
1:name=systemd:{0}
0::/
"""
HYBRID = "1:name=systemd:{0}\n0::{0}\n"
USER = "/user.slice/user-1000.slice/user@1000.service"

SERVICES = {
    "system service": "0::/system.slice/fwknopd.service\n",
    "system service, version 1": V1.format("/system.slice/fwknopd.service"),
    "system service, hybrid": HYBRID.format("/system.slice/fwknopd.service"),
    "template": "0::/system.slice/system-openvpn\\x2dserver.slice/openvpn-server@a.service\n",
    "part of a service": "0::/system.slice/k3s.service/init\n",
    "service that has ended": "0::/system.slice/once.service (deleted)\n",
    "service in a slice of its own": "0::/firewall.slice/ban.service\n",
    "cron": "0::/system.slice/cron.service\n",
    "helper of a user's manager": "0::/system.slice/user-runtime-dir@1000.service\n",
    "seen from another cgroup namespace": "0::/../../system.slice/docker.service\n",
    "docker": f"0::/system.slice/docker-{ID}.scope\n",
    "docker with cgroupfs, version 1": V1.format(f"/docker/{ID}"),
    "systemd in docker": f"0::/system.slice/docker-{ID}.scope/user.slice/user-0.slice/session-1.scope\n",
    "pod": f"0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-{ID}.scope\n",
    "pod with cgroupfs": f"0::/kubepods/besteffort/pod0a1b2c3d/{ID}\n",
    "podman as root": f"0::/machine.slice/libpod-{ID}.scope/container\n",
    "lxc": "0::/lxc.payload.web/system.slice/ssh.service\n",
    "lxc, version 1": V1.format("/lxc/web/user.slice"),
    "nspawn": "0::/machine.slice/systemd-nspawn@web.service/payload/user.slice/user-0.slice/session-1.scope\n",
}
OTHERS = {
    "session": "0::/user.slice/user-1000.slice/session-3.scope\n",
    "session, version 1": V1.format("/user.slice/user-0.slice/session-7.scope"),
    "session, hybrid": HYBRID.format("/user.slice/user-0.slice/session-7.scope"),
    "session in one hierarchy, service in another": "2:pids:/system.slice/ssh.service\n"
    "1:name=systemd:/user.slice/user-0.slice/session-7.scope\n0::/system.slice/x.service\n",
    "user's service": f"0::{USER}/app.slice/x.service\n",
    "user's service, version 1": V1.format(f"{USER}/app.slice/x.service"),
    "user's terminal": f"0::{USER}/app.slice/app-gnome-org.gnome.Terminal-12.scope\n",
    "user's manager": f"0::{USER}/init.scope\n",
    "podman without root": f"0::{USER}/user.slice/libpod-{ID}.scope/container\n",
    "shell of sshd without pam_systemd": "0::/system.slice/ssh.service\n",
    "shell of a connection's sshd": "0::/system.slice/system-sshd.slice/sshd@4-192.0.2.1:22-192.0.2.2:5.service\n",
    "shell of a console": "0::/system.slice/system-getty.slice/getty@tty1.service\n",
    "rescue shell": "0::/system.slice/rescue.service\n",
    "systemd-run --scope": "0::/system.slice/run-r0a1b2c3d.scope\n",
    "virtual machine": "0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope\n",
    "process 1": "0::/init.scope\n",
    "slice alone": "0::/system.slice\n",
    "root": "0::/\n",
    "root, version 1": V1.format("/"),
    "a service's name inside a word": "0::/system.slice/not-a.service-really\n",
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_or_a_container_is_a_service(name: str) -> None:
    """A process in a system service, or in a container that no login user runs, belongs to a service."""
    assert kind_of(SERVICES[name]) is ProcessKind.SERVICE


@pytest.mark.parametrize("name", OTHERS)
def test_sessions_and_scopes_are_not_services(name: str) -> None:
    """A login session, a user's own service, a service with people's shells and a scope are no services."""
    assert kind_of(OTHERS[name]) is ProcessKind.OTHER


@pytest.mark.parametrize("text", ["", "\n", " \n"])
def test_a_text_that_could_not_be_read_is_unknown(text: str) -> None:
    """Without a text nothing is known."""
    assert kind_of(text) is ProcessKind.UNKNOWN


@pytest.mark.parametrize("service", LOGIN_SERVICES)
def test_services_with_shells_count_only_by_their_whole_name(service: str) -> None:
    """A service whose name only contains that of a login service is a service."""
    assert kind_of(f"0::/system.slice/{service}.service\n") is ProcessKind.OTHER
    assert kind_of(f"0::/system.slice/my-{service}.service\n") is ProcessKind.SERVICE
