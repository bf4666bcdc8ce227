"""Which process changed the rules: cgroup texts from real hosts, and processes with hostile names."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.attribution import COMMAND_LENGTH, NO_AUTHORS, Author, parse_status, read_author
from fwguardd.kernel.cgroups import unit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ID = "0123456789ab" + "cdef" * 13
POD = "kubepods-burstable-pod0a1b2c3d_0000_4000_8000_0123456789ab.slice"
"""As the kubelet names a pod's slice: the dashes of the uid are underscores."""

V1 = """\
12:pids:{0}
11:cpuset:/
10:memory:{0}
9:rdma:/
1:name=systemd:{0}
0::/
"""

CGROUPS = {
    "systemd service": ("0::/system.slice/docker.service\n", "docker.service"),
    "systemd service, version 1": (V1.format("/system.slice/firewalld.service"), "firewalld.service"),
    "template": (
        "0::/system.slice/system-wg\\x2dquick.slice/wg-quick@wg0.service\n",
        "wg-quick@wg0.service",
    ),
    "session": ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
    "session, hybrid": (
        "1:name=systemd:/user.slice/user-0.slice/session-7.scope\n0::/user.slice/user-0.slice/session-7.scope\n",
        "session-7.scope",
    ),
    "user's own unit": (
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.gnome.Terminal-12.scope\n",
        "app-gnome-org.gnome.Terminal-12.scope",
    ),
    "part of a service": ("0::/system.slice/k3s.service/init\n", "k3s.service"),
    "unit that has ended": ("0::/system.slice/once.service (deleted)\n", "once.service"),
    "init": ("0::/init.scope\n", "init.scope"),
    "docker with systemd": (f"0::/system.slice/docker-{ID}.scope\n", "container docker 0123456789ab"),
    "docker with systemd, version 1": (V1.format(f"/system.slice/docker-{ID}.scope"), "container docker 0123456789ab"),
    "docker with cgroupfs": (f"0::/docker/{ID}\n", "container docker 0123456789ab"),
    "docker with cgroupfs, version 1": (V1.format(f"/docker/{ID}"), "container docker 0123456789ab"),
    "systemd in docker": (
        f"0::/system.slice/docker-{ID}.scope/system.slice/ssh.service\n",
        "container docker 0123456789ab",
    ),
    "docker in docker": (f"0::/docker/{ID}/docker/{'f' * 64}\n", "container docker 0123456789ab"),
    "podman": (f"0::/machine.slice/libpod-{ID}.scope/container\n", "container podman 0123456789ab"),
    "podman's monitor": (f"0::/machine.slice/libpod-conmon-{ID}.scope\n", "container podman 0123456789ab"),
    "podman with cgroupfs": (f"0::/libpod_parent/libpod-{ID}\n", "container podman 0123456789ab"),
    "podman without root": (
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container\n",
        "container podman 0123456789ab",
    ),
    "kubernetes with containerd": (
        f"0::/kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{ID}.scope\n",
        "container containerd 0123456789ab",
    ),
    "kubernetes with containerd, version 1": (
        V1.format(f"/kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{ID}.scope"),
        "container containerd 0123456789ab",
    ),
    "kubernetes, the driver mistaken": (
        f"0::/system.slice/containerd.service/{POD}:cri-containerd:{ID}\n",
        "container containerd 0123456789ab",
    ),
    "kubernetes with CRI-O": (f"0::/kubepods.slice/{POD}/crio-{ID}.scope\n", "container cri-o 0123456789ab"),
    "kubernetes with docker": (f"0::/kubepods.slice/{POD}/docker-{ID}.scope\n", "container docker 0123456789ab"),
    "kubernetes with cgroupfs": (
        f"0::/kubepods/besteffort/pod0a1b2c3d-0000-4000-8000-0123456789ab/{ID}\n",
        "container kubernetes 0123456789ab",
    ),
    "an engine without a name": (f"0::/ecs/0123abcd/{ID}\n", "container 0123456789ab"),
    "an id at the root": (f"0::/{ID}\n", "container 0123456789ab"),
    "lxc": ("0::/lxc.payload.web/system.slice/ssh.service\n", "container lxc web"),
    "lxc 3": ("0::/lxc.payload/web/init.scope\n", "container lxc web"),
    "lxc, version 1": (V1.format("/lxc/web"), "container lxc web"),
    "lxc's monitor": ("0::/system.slice/lxc@web.service/lxc.monitor.web\n", "lxc@web.service"),
    "nspawn": ("0::/machine.slice/systemd-nspawn@web.service/payload/init.scope\n", "systemd-nspawn@web.service"),
    "nspawn by machinectl": (
        "0::/machine.slice/machine-web.scope/payload/system.slice/ssh.service\n",
        "machine-web.scope",
    ),
    "seen from another cgroup namespace": ("0::/../../system.slice/docker.service\n", "docker.service"),
    "root": (V1.format("/"), None),
    "a slice alone": ("0::/user.slice\n", None),
    "lxc, and nothing in it": ("0::/lxc\n", None),
    "no id": (f"0::/docker/{ID[:-1]}\n", None),
    "no line feed at the end": ("0::/system.slice/docker.service", "docker.service"),
    "colons in the path": ("0::/system.slice/a:b:c.service\n", "a:b:c.service"),
    "a forged line end": ("0::/system.slice/bad\u20280::.service\n", "bad\u20280::.service"),
    "no text": ("", None),
    "no format": ("nothing\n:\n::\n0:\n///\n", None),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_unit_of_a_cgroup(name: str) -> None:
    """The systemd unit, or the container that the host knows, from both versions; None if there is none."""
    text, unit = CGROUPS[name]
    assert unit_of(text) == unit


def test_an_author_is_one_clause() -> None:
    """Every known field, in the order process, command, user, parent, unit."""
    author = Author(
        pid=4711,
        process="iptables",
        command="iptables -F INPUT",
        uid=0,
        user="root",
        unit="session-3.scope",
        parent_pid=4700,
        parent="bash",
    )
    assert str(author) == (
        'process 4711 (iptables) "iptables -F INPUT" by root, child of 4700 (bash), in session-3.scope'
    )


def test_a_parent_is_named_with_what_differs_from_its_child() -> None:
    """A parent that runs as another user, or in another unit, is named with that user or unit."""
    script = Author(4711, "iptables", "iptables -F", 0, "root", "cron.service", 4700, "sh", "sh /opt/fw.sh", "root")
    assert str(script).endswith('by root, child of 4700 (sh) "sh /opt/fw.sh", in cron.service')
    sudo = replace(script, parent="sudo", parent_command="sudo", parent_user="eve", parent_unit="session-3.scope")
    assert str(sudo).endswith("by root, child of 4700 (sudo) by eve in session-3.scope, in cron.service")


def test_several_authors_are_named_up_to_a_limit() -> None:
    """The clause names each of them; the fields are those of the first that had not ended."""
    gone, seen = Author(7, "iptables"), Author(8, "nft", "nft flush ruleset", parent_pid=1)
    two = NO_AUTHORS.with_another(gone).with_another(seen)
    assert str(two) == 'process 7 (iptables), gone already; and by process 8 (nft) "nft flush ruleset", child of 1'
    assert two.fields() == {
        "culprit": str(two),
        "culprit_pid": 8,
        "culprit_process": "nft",
        "culprit_command": "nft flush ruleset",
        "culprit_parent_pid": 1,
    }
    full = two.with_another(seen)
    assert (two.full, full.full) == (False, True)
    assert str(full.with_another(seen)) == f"{full}; and by others"
    assert str(two.with_another(None)) == f"{two}; and by others"


def test_no_author_has_no_fields() -> None:
    """Where no process is known the clause is empty; after lost notices alone it names others."""
    assert not NO_AUTHORS
    assert NO_AUTHORS.fields() == {"culprit": ""}
    assert str(NO_AUTHORS.with_another(None)) == "others"


@pytest.mark.parametrize(
    ("author", "clause"),
    [
        (Author(4711, "iptables"), "process 4711 (iptables), gone already"),
        (Author(4711), "process 4711, gone already"),
        (Author(0), "an unknown process"),
        (Author(0, "nft"), "an unknown process (nft)"),
        (Author(4711, "nft", uid=1234), "process 4711 (nft) by uid 1234"),
        (Author(4711, "nft", uid=0, user="root", parent_pid=1), "process 4711 (nft) by root, child of 1"),
        (Author(4711, "nft", unit="container lxc web"), "process 4711 (nft), in container lxc web"),
    ],
)
def test_a_clause_leaves_out_what_is_not_known(author: Author, clause: str) -> None:
    """Unknown fields leave no trace, and only a process without any field is called gone."""
    assert str(author) == clause


WAITER = "import os, sys; open('/proc/self/comm', 'wb').write(os.fsencode(sys.argv[1])); print(flush=True); input()"
"""Sets its own name, prints a line, and runs until its standard input ends."""


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    """Starts a process with a name and further arguments; its id."""
    started: list[subprocess.Popen[bytes]] = []

    def run(name: bytes, *arguments: bytes) -> int:
        argv = [os.fsencode(sys.executable), b"-I", b"-S", b"-c", WAITER.encode(), name, *arguments]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        return process.pid

    yield run
    for process in started:
        process.communicate()


def test_all_fields_of_a_running_process_are_read(start: Callable[..., int]) -> None:
    """Name, command line, user and parent are those of the process, and of its real parent."""
    pid = start(b"changer", b"-F", b"INPUT")
    author = read_author(pid, "changer")
    assert (author.pid, author.process) == (pid, "changer")
    assert author.command is not None
    assert author.command.endswith(" changer -F INPUT")
    assert author.uid == os.getuid()
    assert author.user == pwd.getpwuid(os.getuid()).pw_name
    assert author.parent_pid == os.getpid()
    with open("/proc/self/comm", encoding="utf-8") as own:  # noqa: PTH123 - a kernel file is no path.
        assert author.parent == own.read().removesuffix("\n")


@pytest.mark.parametrize(
    "name",
    [
        b") S 1 1 (x",
        b"a) R 1 (b",
        b"(((",
        b"a\nPPid:\t1",
        b"a\nUid:\t4242",
        b"\n",
        b"\n\n",
        b"a\\nb\\",
        b"\x1b[2J",
        b"\xff\xfe",
        b" ",
    ],
)
def test_hostile_names_change_nothing_else(start: Callable[..., int], name: bytes) -> None:
    """No name that a process can choose changes the fields for its parent and its user."""
    text = name.decode("utf-8", "surrogateescape")
    author = read_author(start(name), text)
    assert (author.process, author.uid, author.parent_pid) == (text, os.getuid(), os.getpid())


def test_arguments_are_quoted(start: Callable[..., int]) -> None:
    """The command line is quoted as a shell would take it, so that a blank or a quote in an argument shows as one."""
    author = read_author(start(b"x", b"--comment", b"it's -j ACCEPT", b"two\nlines"))
    assert author.command is not None
    assert author.command.endswith("""x --comment 'it'"'"'s -j ACCEPT' 'two\nlines'""")


def test_a_long_command_line_is_cut(start: Callable[..., int]) -> None:
    """512 characters are kept, and the last says that there were more; a megabyte is not read."""
    author = read_author(start(b"x", *[b"a" * 100_000] * 10))
    assert author.command is not None
    assert len(author.command) == COMMAND_LENGTH
    assert author.command.endswith("aaa…")


def test_a_process_with_another_name_is_not_the_author(start: Callable[..., int]) -> None:
    """A process whose name is not the one in the notice has reused the id of one that has ended: it is not reported."""
    pid = start(b"innocent")
    assert read_author(pid, "iptables") == Author(pid, "iptables")


def test_a_process_that_is_gone() -> None:
    """Only the fields of the notice are known."""
    process = subprocess.Popen(["true"])
    process.wait()
    assert read_author(process.pid, "iptables") == Author(process.pid, "iptables")
    assert read_author(process.pid) == Author(process.pid)


def test_a_process_that_ends_while_it_is_read() -> None:
    """The kernel then writes 0 for its id: nothing of that is reported."""
    assert parse_status(b"Name:\tnft\nTgid:\t7\nPid:\t7\nPPid:\t1\nUid:\t0\t0\t0\t0\n") == (7, 1, 0)
    assert parse_status(b"Name:\tnft\nTgid:\t0\nPid:\t0\nPPid:\t0\nUid:\t0\t0\t0\t0\n") is None


def test_a_zombie() -> None:
    """After its end and before its parent's wait a process has no command line any more, but a name and a parent."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    author = read_author(process.pid, "true")
    process.wait()
    assert (author.command, author.uid, author.parent_pid) == (None, os.getuid(), os.getpid())
    assert str(author).startswith(f"process {process.pid} (true) by ")


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**32 - 1])
def test_a_number_that_no_process_has(pid: int) -> None:
    """An id that no process can have counts as one that has ended: 0 is not this process, -1 is not all of them."""
    assert read_author(pid) == Author(pid)


def test_a_thread_is_reported_as_its_process() -> None:
    """The kernel names the thread that committed; people know the process."""
    read: list[Author] = []

    def change() -> None:
        read.append(read_author(threading.get_native_id()))

    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    [author] = read
    assert (author.pid, author.parent_pid) == (os.getpid(), os.getppid())


def test_the_first_process_has_no_parent() -> None:
    """Process 1 has no parent."""
    author = read_author(1)
    assert (author.parent_pid, author.parent) == (None, None)
    assert "child of" not in str(author)
