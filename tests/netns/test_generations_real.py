"""Commit notices of the real kernel: one for each commit, in time, with the right author, and none for anything else.

The folder's conftest moves each test into a network namespace of its own, and these sockets with it.
"""

from __future__ import annotations

import os
import pwd
import select
import shlex
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.kernel.attribution import Author, read_author
from fwguardd.kernel.cgroups import kind_of, unit_of
from fwguardd.kernel.generations import Generation, GenerationNotices, Missed, parse_notice
from fwguardd.kernel.netlink import NETLINK_NETFILTER
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.kernel.generations import Notice

ROOT: Final = Path(__file__).parents[2]
QUIET: Final = 0.1
"""Seconds to wait for a notice that must not arrive; one that arrives takes a few milliseconds."""
PATIENCE: Final = LONGEST
"""Seconds to wait for a notice that must arrive."""

RULE: Final = "INPUT -s 192.0.2.1/32 -j ACCEPT"
CHANGES: Final = {
    "rule added": f"iptables-nft -A {RULE}",
    "rule put first": f"iptables-nft -I {RULE}",
    "rule deleted": "iptables-nft -D INPUT -i lo -j ACCEPT",
    "chain flushed": "iptables-nft -F INPUT",
    "chain flushed that had nothing": "iptables-nft -F OUTPUT",
    "table flushed": "iptables-nft -F",
    "policy": "iptables-nft -P INPUT DROP",
    "policy as it was": "iptables-nft -P INPUT ACCEPT",
    "chain added": "iptables-nft -N WEB",
    "counters": "iptables-nft -Z",
    "another table": "iptables-nft -t nat -A PREROUTING -j ACCEPT",
    "rule added, IPv6": "ip6tables-nft -A INPUT -s 2001:db8::1/128 -j ACCEPT",
    "policy, IPv6": "ip6tables-nft -P FORWARD DROP",
}
READS: Final = (
    "iptables-nft -S",
    "iptables-nft -L -n -v",
    "iptables-nft -C INPUT -i lo -j ACCEPT",
    f"iptables-nft -C {RULE}",
    f"iptables-nft -D {RULE}",
    "ip6tables-nft -S",
    "iptables-nft-save -c",
    "ip6tables-nft-save",
)
"""Among them two that find no such rule: a check, and a deletion, which then commits nothing."""


@pytest.fixture
def notices() -> Iterator[GenerationNotices]:
    """A namespace with one rule in it, and the notices from then on."""
    run("iptables-nft -A INPUT -i lo -j ACCEPT")
    with GenerationNotices() as opened:
        yield opened


def run(command: str, stdin: str = "") -> int:
    """Run a command to its end, which may be an error; its process id."""
    process = subprocess.Popen(
        command.split(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    process.communicate(stdin)
    return process.pid


def arrived(notices: GenerationNotices, seconds: float = QUIET) -> list[Notice]:
    """All notices until none arrives for a while."""
    reported: list[Notice] = []
    while select.select([notices], [], [], seconds)[0]:
        reported += notices.read_available()
    return reported


def next_commit(notices: GenerationNotices) -> Generation:
    """The only notice that arrives."""
    assert select.select([notices], [], [], PATIENCE)[0], "no notice"
    [commit] = notices.read_available()
    assert isinstance(commit, Generation)
    return commit


def rules(count: int, source: str = "10.0.{:d}.{:d}") -> str:
    """Input for a restore of so many rules, each with a source of its own."""
    lines = (f"-A INPUT -s {source.format(*divmod(number, 250))} -j ACCEPT\n" for number in range(count))
    return f"*filter\n{''.join(lines)}COMMIT\n"


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_one_notice(notices: GenerationNotices, change: str) -> None:
    """One command, one commit, one notice, with the next number and the process that made it."""
    command = CHANGES[change]
    pid = run(command)
    number = notices.number_at_opening + 1
    assert arrived(notices) == [Generation(number, pid, command.split()[0][:15])]


@pytest.mark.parametrize("count", [1, 20_000])
@pytest.mark.parametrize(
    ("program", "source"),
    [("iptables-nft-restore", "10.0.{:d}.{:d}"), ("ip6tables-nft-restore", "2001:db8::{:x}:{:x}")],
)
def test_a_restore_is_one_notice(notices: GenerationNotices, program: str, source: str, count: int) -> None:
    """A table with any number of rules is one notice, also if the socket is not read meanwhile."""
    pid = run(program, rules(count, source))
    assert arrived(notices) == [Generation(notices.number_at_opening + 1, pid, program[:15])]


def test_a_restore_of_several_tables_is_a_notice_for_each(notices: GenerationNotices) -> None:
    """A restore commits each table by itself: a comparison after the first notice may see it half done."""
    pid = run("iptables-nft-restore", "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n*nat\n-A PREROUTING -j ACCEPT\nCOMMIT\n")
    reported = arrived(notices)
    number = notices.number_at_opening
    assert reported == [Generation(number + step, pid, "iptables-nft-re") for step in (1, 2)]


def test_a_change_by_nft_is_one_notice(notices: GenerationNotices) -> None:
    """Changes by nft send notices too, in the tables of iptables and in others."""
    for step, command in enumerate(("add table inet other", "add rule ip filter INPUT counter accept"), 1):
        pid = run(f"nft {command}")
        assert arrived(notices) == [Generation(notices.number_at_opening + step, pid, "nft")]


@pytest.mark.parametrize("command", READS)
def test_a_read_sends_no_notice(notices: GenerationNotices, command: str) -> None:
    """Reading the rules, and commands without effect, send no notice."""
    run(command)
    assert arrived(notices) == []


def test_a_read_by_nft_sends_no_notice(notices: GenerationNotices) -> None:
    """Listing by nft sends no notice."""
    run("nft list ruleset")
    assert arrived(notices) == []


@pytest.mark.parametrize("text", [rules(1), "*filter\n-A INPUT -j NOWHERE\nCOMMIT\n", "*filter\nCOMMIT\n"])
@pytest.mark.parametrize("option", ["--test", "--test --noflush"])
def test_a_test_sends_no_notice(notices: GenerationNotices, option: str, text: str) -> None:
    """A restore with --test commits nothing."""
    run(f"iptables-nft-restore {option}", text)
    assert arrived(notices) == []


def test_a_refused_restore_sends_no_notice(notices: GenerationNotices) -> None:
    """A restore that the kernel or the program refuses is not a commit."""
    run("iptables-nft-restore", "*filter\n-A INPUT -j NOWHERE\nCOMMIT\n")
    run("iptables-nft-restore", "*nat\n-A PREROUTING -j MASQUERADE\nCOMMIT\n")
    assert arrived(notices) == []


@pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy"])
def test_a_change_by_legacy_sends_no_notice(notices: GenerationNotices, program: str) -> None:
    """Legacy iptables sends no notices: only a comparison finds its changes."""
    run(f"{program} -A INPUT -j ACCEPT")
    run(f"{program} -P FORWARD DROP")
    run(f"{program}-restore", rules(1) if program == "iptables-legacy" else "*filter\n-A INPUT -j DROP\nCOMMIT\n")
    assert arrived(notices) == []


def test_notices_of_other_namespaces_do_not_arrive(notices: GenerationNotices) -> None:
    """Changes in the namespace of a rehearsal or a container send no notice to this one."""
    run("unshare --net iptables-nft -A INPUT -j ACCEPT")
    assert arrived(notices) == []
    pid = run(f"iptables-nft -A {RULE}")
    assert next_commit(notices).pid == pid


def test_what_was_before_the_opening_is_not_reported(notices: GenerationNotices) -> None:
    """Each socket tells what comes after it, and begins with the number that the last notice had."""
    run(f"iptables-nft -A {RULE}")
    with GenerationNotices() as second:
        assert second.read_available() == []
        assert second.number_at_opening == next_commit(notices).number


def add_tables(count: int) -> None:
    """Commit ``count`` times in this thread: an nft table each, without running a program."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as changer:
        for number in range(count):
            changer.sendto(new_table(f"t{number}".encode()), (0, 0))


def new_table(name: bytes) -> bytes:
    """A batch that adds one table: NFNL_MSG_BATCH_BEGIN, NFT_MSG_NEWTABLE with NFTA_TABLE_NAME, NFNL_MSG_BATCH_END."""
    padded = name + bytes(4 - len(name) % 4)
    attribute = struct.pack("=HH", 4 + len(name) + 1, 1) + padded
    begin = struct.pack("=IHHII", 20, 0x10, 1, 0, 0) + struct.pack(">BBH", 0, 0, 10)
    add = struct.pack("=IHHII", 20 + len(attribute), 0x0A00, 0x401, 1, 0) + struct.pack(">BBH", 2, 0, 0) + attribute
    end = struct.pack("=IHHII", 20, 0x11, 1, 2, 0) + struct.pack(">BBH", 0, 0, 10)
    return begin + add + end


def test_a_flood_that_nobody_reads_is_reported_as_missed(notices: GenerationNotices) -> None:
    """When the buffer overflows, that comes before what it held, and what comes after the flood is reported again."""
    with socket.socket(fileno=os.dup(notices.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    add_tables(200)
    reported = arrived(notices)
    assert reported[0] == Missed()
    held = [notice for notice in reported if isinstance(notice, Generation)]
    assert 0 < len(held) < 200
    assert [commit.number for commit in held] == sorted({commit.number for commit in held})
    pid = run(f"iptables-nft -A {RULE}")
    assert next_commit(notices) == Generation(notices.number_at_opening + 201, pid, "iptables-nft")


def test_a_burst_fits_the_buffer_as_it_is(notices: GenerationNotices) -> None:
    """A hundred commits that are not read meanwhile are returned one by one, up to the limit."""
    add_tables(100)
    first = notices.read_available(limit=30)
    numbers = [notice.number for notice in (*first, *arrived(notices)) if isinstance(notice, Generation)]
    assert len(first) == 30
    assert numbers == list(range(notices.number_at_opening + 1, notices.number_at_opening + 101))


def test_a_notice_that_is_not_the_kernels_is_dropped(notices: GenerationNotices) -> None:
    """A process with CAP_NET_ADMIN can write to the socket; its messages are dropped."""
    forged = struct.pack("=IHHIIxxxxHH4s", 28, 0x0A0F, 0, 0, 0, 8, 1, b"\0\0\0\7")
    assert parse_notice(forged) == [Generation(7, 0, "")]
    with socket.socket(fileno=os.dup(notices.fileno())) as same:
        port, _ = same.getsockname()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as forger:
        forger.sendto(forged, (port, 0))
    assert select.select([notices], [], [], PATIENCE)[0]
    assert notices.read_available() == []


def test_without_the_capability_the_error_says_which() -> None:
    """The error of a process without CAP_NET_ADMIN names the capability."""
    program = (
        "from fwguardd.kernel.generations import GenerationNotices, NoticesNotPermittedError\n"
        "try:\n    GenerationNotices()\nexcept NoticesNotPermittedError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], user=65534, env=environment, check=True, capture_output=True, text=True
    )
    assert "CAP_NET_ADMIN" in done.stdout


def test_a_thread_is_reported_by_its_own_number(notices: GenerationNotices) -> None:
    """The kernel's pid is that of the thread; the culprit is the process, and names what people know it by."""
    numbers: list[int] = []
    seen: list[Author] = []

    def change() -> None:
        numbers.append(threading.get_native_id())
        Path("/proc/thread-self/comm").write_text("worker", encoding="ascii")
        add_tables(1)
        commit = next_commit(notices)
        numbers.append(commit.pid)
        seen.append(read_author(commit.pid, commit.process))

    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    assert numbers[0] == numbers[1] != os.getpid()
    assert seen[0].pid == os.getpid()
    assert seen[0].process == Path("/proc/self/comm").read_text(encoding="utf-8").removesuffix("\n")


def test_the_author_of_a_change_is_read(notices: GenerationNotices) -> None:
    """A process that still runs is read with its command line, its user, its unit and its parent."""
    code = "import socket, sys; socket.socket(16, 3, 12).sendto(bytes.fromhex(sys.argv[1]), (0, 0)); input()"
    argv = [sys.executable, "-I", "-S", "-c", code, new_table(b"sneaky").hex()]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        commit = next_commit(notices)
        author = read_author(commit.pid, commit.process)
        assert process.stdin is not None
        process.stdin.close()
    assert commit.pid == process.pid
    assert author == Author(
        pid=process.pid,
        process=commit.process,
        command=shlex.join(argv),
        uid=os.getuid(),
        user=pwd.getpwuid(os.getuid()).pw_name,
        unit=unit_of(Path("/proc/self/cgroup").read_text(encoding="utf-8")),
        parent_pid=os.getpid(),
        parent=Path("/proc/self/comm").read_text(encoding="utf-8").removesuffix("\n"),
        parent_command=read_author(os.getpid()).command,
        parent_user=pwd.getpwuid(os.getuid()).pw_name,
        parent_unit=unit_of(Path("/proc/self/cgroup").read_text(encoding="utf-8")),
        kind=kind_of(Path("/proc/self/cgroup").read_text(encoding="utf-8")),
    )


def test_the_author_iptables_is_read_as_far_as_possible(notices: GenerationNotices) -> None:
    """It ends a moment after its commit: what can still be read is right, and the name is always known."""
    seen: list[Author] = []
    for _ in range(20):
        shell = subprocess.Popen(["sh", "-c", f"iptables-nft -A {RULE}; read end"], stdin=subprocess.PIPE)
        commit = next_commit(notices)
        author = read_author(commit.pid, commit.process)
        shell.communicate()
        seen.append(author)
        assert (author.pid, author.process) == (commit.pid, "iptables-nft")
        assert author.command in (None, f"iptables-nft -A {RULE}")
        assert (author.uid, author.parent_pid, author.parent) in (
            (None, None, None),
            (os.getuid(), shell.pid, "sh"),
        )
    print(f"of 20 runs of iptables-nft {sum(author.command is not None for author in seen)} were still seen whole")
