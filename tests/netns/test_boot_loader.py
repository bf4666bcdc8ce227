"""The boot loader on the real kernel: what is in force afterwards, in which family, and what it says of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.expiry import written_until
from fwguardd.ruleset.model import RuleFile
from fwguardd.ruleset.parser import read_rules
from fwguardd.store.boot_files import BootFiles
from fwguardd.store.durable import HostSystem
from fwguardd.store.model import Kept, Revision
from tests.scale import scaled
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    Saved = Callable[[], dict[str, list[str]]]

ROOT = Path(__file__).resolve().parents[2]
LOADER = ROOT / "packaging" / "fwguardd-boot"
EMERGENCY = ROOT / "packaging" / "emergency"
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"]}
BOOT_TOOLS = ("sh", "dash", "sed", "wc", "stat", "id", "sha256sum", "mkdir", "mv", "rm", "date", "cat")
RESTORES = tuple(f"{family}-{backend}-restore" for family in ("iptables", "ip6tables") for backend in ("nft", "legacy"))

POLICIES = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
RULES = f"""\
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 22 -j MARK --set-xmark 0x1/0xffffffff
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 4433 -j DROP
COMMIT
{POLICIES}:WEB - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -j WEB
-A WEB -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
"""
"""What a revision may look like, for both families. The kernel takes it, and prints it like this."""
REFUSED = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j MASQUERADE\nCOMMIT\n"
"""What the kernel takes from nobody: MASQUERADE is for POSTROUTING."""


def manifest(backend: str, texts: dict[str, bytes], revision: str, form: str) -> bytes:
    """A manifest as the daemon writes it, seal included."""
    lines = [f"form={form}", f"revision={revision}", "kind=rules", f"backend={backend}"]
    lines += [f"sha256={hashlib.sha256(text).hexdigest()}  {name}" for name, text in texts.items()]
    text = "".join(f"{line}\n" for line in lines).encode()
    return text + f"seal={hashlib.sha256(text).hexdigest()}\n".encode()


def text_lines(text: str) -> list[str]:
    """The rules and the policies that are no defaults of a text for iptables-restore, without counters."""
    lines = [line.removesuffix(" [0:0]") for line in text.splitlines()]
    return sorted(line for line in lines if re.match(r"-A|:(?!\S+ ACCEPT$)", line))


def loaded_lines(lines: list[str]) -> list[str]:
    """The same of what is loaded."""
    return text_lines("\n".join(lines))


def emergency_lines(name: str) -> list[str]:
    """The same of one of the emergency texts."""
    return text_lines((EMERGENCY / name).read_text())


class Loader:
    """The boot loader under one shell, on directories of the test's own."""

    def __init__(self, folder: Path, backend: str, shell: list[str]) -> None:
        self.folder, self.backend, self.shell = folder, backend, shell
        self.state, self.runtime, self.emergency = folder / "state", folder / "run", EMERGENCY
        self.environment = dict(os.environ)
        self.prefix: list[str] = []

    @property
    def files(self) -> Path:
        """The directory that holds the present boot files."""
        return self.state / "boot-000041-1"

    def keep(
        self, ipv4: str = RULES, ipv6: str = RULES, backend: str = "", revision: str = "41", form: str = "1"
    ) -> None:
        """Write boot files as the daemon does."""
        self.files.mkdir(parents=True, exist_ok=True)
        texts = {"ipv4.rules": ipv4.encode(), "ipv6.rules": ipv6.encode()}
        for name, text in texts.items():
            (self.files / name).write_bytes(text)
        (self.files / "manifest").write_bytes(manifest(backend or self.backend, texts, revision, form))
        link = self.state / "boot"
        if not link.is_symlink():
            link.symlink_to(self.files.name)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end, in a directory of its own, so that whatever it should not write is found there."""
        here = self.folder / "here"
        here.mkdir(exist_ok=True)
        argv = [*self.prefix, *self.shell, str(LOADER), "--state-dir", str(self.state)]
        argv += ["--runtime-dir", str(self.runtime), "--emergency-dir", str(self.emergency), *options]
        finished = subprocess.run(
            argv, cwd=here, env=self.environment, capture_output=True, text=True, check=False, timeout=LONGEST
        )
        assert not list(here.iterdir())
        assert finished.stdout == "" or "--check" in options
        return finished

    def report(self) -> dict[str, str]:
        """What it wrote for the daemon."""
        assert [path.name for path in self.runtime.iterdir()] == ["boot"]
        lines = (self.runtime / "boot").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def programs(self, *restores: str) -> Path:
        """From now on it finds these programs only, and what a shell script needs."""
        folder = self.folder / "bin"
        folder.mkdir()
        for name in (*BOOT_TOOLS, *restores):
            found = shutil.which(name)
            assert found, f"{name} is not installed"
            (folder / name).symlink_to(found)
        self.shell = [shutil.which(self.shell[0]) or self.shell[0], *self.shell[1:]]
        self.environment["PATH"] = str(folder)
        return folder

    def replace(self, folder: Path, name: str, script: str) -> None:
        """Put a script in the place of a program; $REAL in it is the real one."""
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(f"#!/bin/sh\nREAL={shutil.which(name)}\n{script}\n")
        (folder / name).chmod(0o755)


@pytest.fixture(params=SHELLS)
def loader(request: pytest.FixtureRequest, tmp_path: Path, backend: str) -> Loader:
    """The loader under each of the shells that a small system may have as /bin/sh."""
    shell = SHELLS[request.param]
    assert shutil.which(shell[0]) is not None, f"nothing shows that the loader runs under it: apt install {shell[0]}"
    return Loader(tmp_path, backend, shell)


def assert_emergency(saved: Saved) -> None:
    """Both families hold the emergency set to the letter, and no other table holds anything."""
    for family, lines in saved().items():
        assert loaded_lines(lines) == emergency_lines(f"emergency.v{family[-1]}.rules"), family


def test_a_good_revision_is_in_force_in_both_families(loader: Loader, saved: Saved) -> None:
    """Whole boot files are loaded to the letter, in the backend that they name, and the report says so."""
    loader.keep()
    finished = loader.run()
    assert (finished.returncode, loader.report()["outcome"]) == (0, "revision")
    assert finished.stderr == f"<5>revision 41 is in force ({loader.backend}, IPv4 and IPv6)\n"
    for lines in saved().values():
        assert loaded_lines(lines) == text_lines(RULES)


def test_the_report_is_what_the_daemon_can_read(loader: Loader) -> None:
    """The report has one key=value in a line, each key once, and the time is now."""
    loader.keep()
    loader.run()
    report = loader.report()
    when = int(report.pop("when"))
    assert abs(when - time.time()) < 60
    assert report == {
        "outcome": "revision",
        "ipv4": "revision",
        "ipv6": "revision",
        "revision": "41",
        "backend": loader.backend,
        "reason": "",
    }


def test_what_the_daemon_writes_is_what_the_loader_reads(loader: Loader, saved: Saved) -> None:
    """The boot files of the daemon's own store are loaded, and a second set takes the place of the first."""
    for number, port in ((7, 80), (8, 443)):
        text = f"-P INPUT DROP\n-A INPUT -p tcp --dport {port} -j ACCEPT\n"
        rulesets = compose([read_rules("10.rules", text.encode())]).candidate.rulesets
        loader.state.mkdir(exist_ok=True)
        revision = Revision(number, 0.0, "boot", "", Backend(loader.backend), "1.8.9", "6.1", "", (), rulesets)
        BootFiles(HostSystem(), loader.state).write(revision)
        assert loader.run("--check").stdout == f"the next boot will load revision {number} ({loader.backend})\n"
        assert loader.run().returncode == 0
        assert loader.report()["revision"] == str(number)
        for lines in saved().values():
            assert loaded_lines(lines) == [f"-A INPUT -p tcp -m tcp --dport {port} -j ACCEPT", ":INPUT DROP"]


def test_rules_that_have_ended_are_left_out(loader: Loader, saved: Saved) -> None:
    """Of rules with an end only those are loaded whose end has not come, in both families; the report has the time that
    decided. The file of the store reads as the whole revision."""
    ends = {8080: 1, 8081: int(time.time()) + 3600, 8082: 2, 8083: int(time.time()) + 36_000}
    text = "-P INPUT DROP\n-A INPUT -p tcp --dport 80 -j ACCEPT\n\n"
    for port, until in ends.items():
        text += f"{written_until(until)}\n-A INPUT -p tcp --dport {port} -j ACCEPT\n\n"
    file = read_rules("10.rules", text.encode())
    rulesets = compose([file]).candidate.rulesets
    loader.state.mkdir()
    files = (RuleFile("10.rules", text.encode()),)
    revision = Revision(7, 0.0, "boot", "", Backend(loader.backend), "1.8.9", "6.1", "", files, rulesets)
    store = BootFiles(HostSystem(), loader.state)
    store.write(revision)
    copy = store.copy()
    assert isinstance(copy, Kept)
    assert copy.revision.rulesets == rulesets
    assert (loader.run().returncode, loader.report()["outcome"]) == (0, "revision")
    assert int(loader.report()["when"]) >= 2
    rules = [f"-A INPUT -p tcp -m tcp --dport {port} -j ACCEPT" for port in (80, 8081, 8083)]
    for lines in saved().values():
        assert loaded_lines(lines) == [*rules, ":INPUT DROP"]


def test_a_first_boot_gets_the_emergency_set(loader: Loader, saved: Saved) -> None:
    """Where no revision was ever kept, the emergency set is loaded, in the host's own backend. That is no failure."""
    loader.programs(*(name for name in RESTORES if f"-{loader.backend}-" in name))
    finished = loader.run()
    report = loader.report()
    assert (finished.returncode, report["outcome"], report["revision"]) == (0, "emergency", "")
    assert report["backend"] == loader.backend
    assert "there is no revision yet" in report["reason"]
    assert finished.stderr.startswith("<4>the emergency set is in force")
    assert finished.stderr.count("\n") == 1
    assert_emergency(saved)


@pytest.mark.parametrize("how", ["cannot be read", "missing", "only a set is left", "another user", "writable"])
@pytest.mark.either_backend
def test_boot_files_that_are_lost_are_no_first_boot(loader: Loader, how: str, saved: Saved) -> None:
    """A state directory that cannot be searched, in which another user may have written, or that holds revisions or a
    set of boot files but not the link to it, is an error: the emergency set is loaded, with an exit code and a reason
    that say so."""
    loader.programs(*(name for name in RESTORES if f"-{loader.backend}-" in name))
    if how == "missing":
        (loader.state / "revisions").mkdir(parents=True)
        (loader.state / "revisions" / "000001.json").write_text("")
        reason = "boot is missing, although revisions are kept"
    elif how == "only a set is left":
        (loader.state / "boot-000001-1").mkdir(parents=True)
        reason = "boot is missing, although revisions are kept"
    elif how == "another user":
        loader.state.mkdir()
        os.chown(loader.state, 65534, 65534)
        reason = f"{loader.state} cannot be trusted: user 65534 owns it"
    elif how == "writable":
        loader.state.mkdir()
        loader.state.chmod(0o770)
        reason = f"{loader.state} cannot be trusted: its mode lets others write to it"
    else:
        loader.state.symlink_to(loader.state)
        reason = "boot cannot be read: Too many levels of symbolic links"
    finished = loader.run()
    report = loader.report()
    assert (finished.returncode, report["outcome"], report["revision"]) == (1, "emergency", "")
    assert reason in report["reason"]
    assert finished.stderr.startswith("<3>the emergency set is in force")
    assert_emergency(saved)


def _append(loader: Loader) -> None:
    with (loader.files / "ipv4.rules").open("a") as file:
        file.write("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")


def _truncate(loader: Loader) -> None:
    os.truncate(loader.files / "ipv6.rules", 300)


def _tear_manifest(loader: Loader) -> None:
    lines = (loader.files / "manifest").read_bytes().splitlines(keepends=True)
    (loader.files / "manifest").write_bytes(b"".join(lines[:4]))


def _turn_backend(loader: Loader) -> None:
    other = {"nft": b"backend=legacy", "legacy": b"backend=nft"}[loader.backend]
    data = (loader.files / "manifest").read_bytes()
    (loader.files / "manifest").write_bytes(data.replace(f"backend={loader.backend}".encode(), other))


def _lead_nowhere(loader: Loader) -> None:
    (loader.state / "boot").unlink()
    (loader.state / "boot").symlink_to("boot-000040-1")


def _plain_file(loader: Loader) -> None:
    (loader.state / "boot").unlink()
    (loader.state / "boot").write_text("")


def _meddle(text: bytes) -> Callable[[Loader], object]:
    return lambda loader: (loader.files / "manifest").write_bytes(text)


def _fifo(loader: Loader) -> None:
    (loader.files / "ipv4.rules").unlink()
    os.mkfifo(loader.files / "ipv4.rules")


def _seem_huge(name: str) -> Callable[[Loader], object]:
    """4 TiB that nothing was written to, as a damaged inode shows them."""
    return lambda loader: os.truncate(loader.files / name, 1 << 42)


EVIL = "$(touch pwned)`touch pwned`;touch pwned;&|<>\"'*"
BROKEN: dict[str, tuple[Callable[[Loader], object], str]] = {
    "a sum is wrong": (_append, "ipv4.rules is missing or damaged"),
    "a file is missing": (lambda loader: (loader.files / "ipv6.rules").unlink(), "ipv6.rules is missing"),
    "a file is cut off": (_truncate, "ipv6.rules is missing or damaged"),
    "a file is a pipe": (_fifo, "ipv4.rules is missing"),
    "a file seems huge": (_seem_huge("ipv4.rules"), "ipv4.rules is missing or damaged"),
    "the manifest seems huge": (_seem_huge("manifest"), "manifest is damaged: its size is impossible"),
    "no manifest": (lambda loader: (loader.files / "manifest").unlink(), "manifest is missing"),
    "the manifest is cut off": (_tear_manifest, "its seal is wrong"),
    "the manifest is empty": (_meddle(b""), "has no valid revision number"),
    "the manifest is noise": (_meddle(bytes(range(256)) * 20), "has no valid revision number"),
    "a bit of the manifest turned": (_turn_backend, "its seal is wrong"),
    "a newer form": (lambda loader: loader.keep(form="2"), "has an unknown format version"),
    "the shell in the number": (lambda loader: loader.keep(revision=EVIL), "has no valid revision number"),
    "the shell in the backend": (lambda loader: loader.keep(backend=EVIL), "has no valid backend"),
    "a path in the backend": (lambda loader: loader.keep(backend="../../bin/x"), "has no valid backend"),
    "two numbers": (lambda loader: loader.keep(revision="41\nrevision=42"), "has no valid revision number"),
    "the link leads nowhere": (_lead_nowhere, "boot does not point to a directory"),
    "the link is a file": (_plain_file, "boot does not point to a directory"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.either_backend
def test_broken_boot_files_give_the_emergency_set(loader: Loader, how: str, saved: Saved) -> None:
    """Whatever is wrong with the boot files, none is loaded, nothing in them runs, and the reason is reported."""
    loader.programs(*(name for name in RESTORES if f"-{loader.backend}-" in name))
    damage, reason = BROKEN[how]
    loader.keep()
    damage(loader)
    finished = loader.run()
    report = loader.report()
    assert (finished.returncode, report["outcome"], report["revision"]) == (1, "emergency", "")
    assert report["backend"] == loader.backend
    assert reason in report["reason"]
    assert report["reason"] in finished.stderr
    assert finished.stderr.startswith("<3>the emergency set is in force")
    assert_emergency(saved)
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.either_backend
def test_broken_boot_files_are_found_before_the_boot(loader: Loader, how: str, saved: Saved) -> None:
    """--check tells the same without loading or writing anything."""
    loader.keep()
    BROKEN[how][0](loader)
    finished = loader.run("--check")
    assert finished.returncode == 1
    assert BROKEN[how][1] in finished.stderr
    assert not loader.runtime.exists()
    assert saved() == {"ipv4": [], "ipv6": []}


def test_check_looks_at_the_emergency_set_too(loader: Loader) -> None:
    """--check is content with a good revision only where there is also a whole emergency set to fall back to."""
    loader.keep()
    assert loader.run("--check").returncode == 0
    loader.emergency = loader.folder / "emergency"
    shutil.copytree(EMERGENCY, loader.emergency)
    (loader.emergency / "minimal" / "emergency.v6.rules").unlink()
    finished = loader.run("--check")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "minimal/emergency.v6.rules is missing" in finished.stderr


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.either_backend
def test_refused_in_one_family_is_the_emergency_set_in_both(
    loader: Loader, saved: Saved, family: str, place: str
) -> None:
    """If the kernel refuses a part of one family, nothing of the revision stays in either, in any table."""
    texts = {"ipv4": RULES, "ipv6": RULES, family: REFUSED + RULES if place == "first" else RULES + REFUSED}
    loader.keep(texts["ipv4"], texts["ipv6"])
    finished = loader.run()
    report = loader.report()
    assert (finished.returncode, report["outcome"]) == (1, "emergency")
    assert f"IPv{family[-1]} refused revision 41: ip" in report["reason"]
    assert_emergency(saved)


def test_a_missing_ipset_is_the_emergency_set(loader: Loader, saved: Saved) -> None:
    """A revision that names an ipset loads where the set was made before, and is refused as a whole where not."""
    rule = "-A INPUT -m set --match-set blocked src -j DROP"
    loader.keep(ipv4=RULES.replace("-A INPUT -i lo", f"{rule}\n-A INPUT -i lo"))
    assert (loader.run().returncode, loader.report()["outcome"]) == (1, "emergency")
    assert "Set blocked doesn't exist" in loader.report()["reason"]
    assert_emergency(saved)
    subprocess.run(["ipset", "create", "blocked", "hash:net"], check=True)
    assert loader.run().returncode == 0
    assert rule in saved()["ipv4"]


def test_every_line_of_the_sets_loads(loader: Loader, saved: Saved) -> None:
    """Each set loads by itself, in both families and backends, and the kernel prints it as it is written."""
    for folder in ("", "minimal/"):
        for family, program in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
            with (EMERGENCY / f"{folder}emergency.v{family[-1]}.rules").open() as text:
                subprocess.run([f"{program}-{loader.backend}-restore", "-w", "5"], stdin=text, check=True)
            assert loaded_lines(saved()[family]) == emergency_lines(f"{folder}emergency.v{family[-1]}.rules")


def test_without_conntrack_the_minimal_set_is_in_force(loader: Loader, saved: Saved) -> None:
    """Where the kernel lacks a module that the emergency set needs, the minimal set still lets ssh in."""
    folder = loader.programs(*RESTORES)
    for name in RESTORES:
        missing = "Warning: Extension conntrack revision 0 not supported, missing kernel module?"
        script = f'text=$(cat)\ncase $text in *ctstate*) echo "{missing}" >&2; exit 2 ;; esac\n'
        loader.replace(folder, name, f'{script}printf \'%s\\n\' "$text" | $REAL "$@"')
    loader.keep(ipv6=RULES.replace("-A INPUT -j WEB", "-A INPUT -m conntrack --ctstate NEW -j WEB"))
    finished = loader.run()
    report = loader.report()
    assert (finished.returncode, report["outcome"], report["ipv4"]) == (1, "minimal", "minimal")
    assert "missing kernel module?" in report["reason"]
    assert finished.stderr.startswith("<3>the minimal set is in force")
    for family, lines in saved().items():
        assert loaded_lines(lines) == emergency_lines(f"minimal/emergency.v{family[-1]}.rules")


def test_nothing_loads(loader: Loader, saved: Saved) -> None:
    """If no set loads, that is said at error level with the kernel's words, and the code is 3."""
    folder = loader.programs(*RESTORES)
    for name in RESTORES:
        loader.replace(folder, name, "cat >/dev/null\nprintf 'no \\\\n way\\033[31m\\n<0>more\\n' >&2\nexit 4")
    loader.keep()
    finished = loader.run()
    report = loader.report()
    assert (finished.returncode, report["outcome"], report["revision"]) == (3, "failed", "")
    assert "IPv4 refused the minimal set: no \\n way?[31m" in report["reason"]
    assert finished.stderr.startswith("<3>NOT PROTECTED: loaded for IPv4: nothing, for IPv6: nothing")
    assert finished.stderr.count("\n") == 1
    assert saved() == {"ipv4": [], "ipv6": []}


def test_no_iptables_at_all(loader: Loader) -> None:
    """Without any program of iptables it says what to install."""
    loader.programs()
    loader.keep()
    finished = loader.run()
    assert (finished.returncode, loader.report()["outcome"]) == (3, "failed")
    assert "apt install iptables" in finished.stderr


def test_without_ip6tables_ipv4_gets_its_revision(loader: Loader, saved: Saved) -> None:
    """A missing ip6tables takes nothing from IPv4; but this kernel has IPv6, so that it stays open is an error."""
    loader.programs(*(name for name in RESTORES if name.startswith("iptables")))
    loader.keep()
    finished = loader.run()
    report = loader.report()
    assert (report["ipv4"], report["ipv6"], report["revision"]) == ("revision", "nothing", "41")
    assert (finished.returncode, report["outcome"]) == (3, "failed")
    assert "no iptables-restore for IPv6 is installed" in finished.stderr
    assert loaded_lines(saved()["ipv4"]) == text_lines(RULES)
    assert saved()["ipv6"] == []


def test_a_kernel_without_ipv6_is_no_failure(loader: Loader, saved: Saved) -> None:
    """Where ip6tables cannot begin, as the kernel has no IPv6, IPv4 gets its revision and the code is 0."""
    folder = loader.programs(*RESTORES)
    words = "can't initialize ip6tables table: Address family not supported by protocol"
    for name in RESTORES[2:]:
        loader.replace(folder, name, f'cat >/dev/null\necho "{words}" >&2\nexit 3')
    loader.keep()
    # A /proc with nothing in it, for this process alone: so the kernel tells of no IPv6.
    loader.prefix = [
        "/usr/bin/unshare",
        "--mount",
        "/bin/sh",
        "-c",
        '/bin/mount -t tmpfs none /proc && exec "$@"',
        "sh",
    ]
    finished = loader.run()
    report = loader.report()
    assert (finished.returncode, report["outcome"], report["ipv4"]) == (0, "revision", "revision")
    assert (report["ipv6"], report["revision"]) == ("absent", "41")
    assert words in report["reason"]
    assert "this kernel has no IPv6" in finished.stderr
    assert loaded_lines(saved()["ipv4"]) == text_lines(RULES)


def test_plain_programs_do_if_they_are_of_the_backend(loader: Loader, saved: Saved) -> None:
    """Where only iptables-restore is there, without a backend in its name, it is taken if its --version names it."""
    folder = loader.programs(*RESTORES)
    for family in ("iptables", "ip6tables"):
        for backend in ("nft", "legacy"):
            (folder / f"{family}-{backend}-restore").unlink()
        script = f'exec {shutil.which(f"{family}-{loader.backend}-restore")} "$@"'
        loader.replace(folder, f"{family}-restore", script)
    loader.keep()
    assert loader.run().returncode == 0
    assert all(loaded_lines(lines) == text_lines(RULES) for lines in saved().values())


def test_a_revision_of_a_backend_that_is_gone(loader: Loader) -> None:
    """A revision of a backend whose programs are gone is not loaded into the other one: the emergency set is."""
    other = {"nft": "legacy", "legacy": "nft"}[loader.backend]
    loader.programs(*(name for name in RESTORES if other in name))
    loader.keep()
    finished = loader.run()
    report = loader.report()
    assert (finished.returncode, report["outcome"], report["backend"]) == (1, "emergency", other)
    assert f"no iptables-restore for {loader.backend} is installed" in report["reason"]


def test_a_lock_that_is_held_for_a_while_is_waited_for(tmp_path: Path) -> None:
    """A legacy lock that somebody lets go after a few seconds costs these seconds, not the revision."""
    loader = Loader(tmp_path, "legacy", SHELLS["dash"])
    loader.keep()
    lock = tmp_path / "xtables.lock"
    loader.environment["XTABLES_LOCKFILE"] = str(lock)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        release = threading.Timer(6.0, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        finished = loader.run()
        release.join()
    assert (finished.returncode, loader.report()["outcome"]) == (0, "revision")


def test_a_report_that_cannot_be_written_costs_only_the_report(loader: Loader, saved: Saved) -> None:
    """Where the runtime directory cannot be, the rules are loaded all the same, and the loss is reported."""
    loader.keep()
    loader.runtime.write_text("")
    finished = loader.run()
    assert finished.returncode == 0
    assert finished.stderr.splitlines()[1].startswith("<4>cannot write")
    assert all(loaded_lines(lines) == text_lines(RULES) for lines in saved().values())


@pytest.mark.parametrize("options", [["--load"], ["--state-dir"], ["--runtime-dir", ""], ["--check", "x"]])
@pytest.mark.either_backend
def test_wrong_usage_touches_nothing(loader: Loader, options: list[str], saved: Saved) -> None:
    """Options that do not exist, or lack their directory, are reported with the usage and code 2."""
    loader.keep()
    finished = loader.run(*options)
    assert finished.returncode == 2
    assert "wrong usage; fwguardd-boot [--state-dir D]" in finished.stderr
    assert not loader.runtime.exists()
    assert saved() == {"ipv4": [], "ipv6": []}


@pytest.mark.parametrize("folder", ["", "minimal/"])
def test_the_emergency_set_lets_in_ssh_and_nothing_else(
    backend: str, peer: Any, listen: Callable[[int], None], folder: str
) -> None:
    """With real packets: ssh from another host works over IPv4 and IPv6, and no other port answers."""
    for port in (22, 80):
        listen(port)
    assert all(peer.connects(address, 80) for address in ("198.51.100.1", "2001:db8::1"))
    for family, program in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
        with (EMERGENCY / f"{folder}emergency.v{family[-1]}.rules").open() as text:
            subprocess.run([f"{program}-{backend}-restore", "-w", "5"], stdin=text, check=True)
    # What is known of the neighbours is forgotten: they must be found again through the rules.
    subprocess.run(["ip", "neighbour", "flush", "dev", "guard0"], check=True)
    peer.run("ip neighbour flush dev peer0")
    for address in ("198.51.100.1", "2001:db8::1"):
        assert peer.connects(address, 22, seconds=3.0), address
        assert not peer.connects(address, 80, seconds=0.5), address


def test_a_run_over_other_tables_leaves_nothing_of_them(backend: str, tmp_path: Path, saved: Saved) -> None:
    """What stood there before goes, chains that refer to each other too; a table that a text does not name stays."""
    loader = Loader(tmp_path, backend, SHELLS["dash"])
    loader.keep()
    old = f"{POLICIES}:B-1 - [0:0]\n:A.2 - [0:0]\n-A INPUT -j B-1\n-A B-1 -j A.2\n-A A.2 -j ACCEPT\nCOMMIT\n"
    kept = "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -d 192.0.2.9/32 -p tcp -j DNAT --to-destination 192.0.2.8\nCOMMIT\n"
    subprocess.run([f"iptables-{backend}-restore"], input=old + kept, text=True, check=True)
    assert loader.run().returncode == 0
    texts = saved()
    assert loaded_lines(texts["ipv6"]) == text_lines(RULES)
    assert set(loaded_lines(texts["ipv4"])) - set(text_lines(RULES)) == set(text_lines(kept))
    assert not [line for line in texts["ipv4"] if line.startswith((":B-1", ":A.2"))]


@pytest.mark.parametrize("backend", ["nft"])
def test_a_kernel_that_deletes_no_chain_yet_keeps_it_empty(backend: str, tmp_path: Path, saved: Saved) -> None:
    """Where a chain cannot be deleted in the commit that empties what jumps to it, the revision is in force all the
    same, and the tables are not replaced for that."""
    loader = Loader(tmp_path, backend, SHELLS["dash"])
    loader.keep()
    subprocess.run(["iptables-nft-restore"], input=f"{POLICIES}:OLD - [0:0]\nCOMMIT\n", text=True, check=True)
    folder, seen = loader.programs(*RESTORES), tmp_path / "replaced"
    for name in ("iptables-nft-restore", "ip6tables-nft-restore"):
        refusal = 'echo "CHAIN_DEL failed (Device or resource busy)" >&2; exit 4'
        script = f'text=$(cat)\ncase $text in *"-X "*) {refusal} ;; esac\n'
        script += f'case "$*,$text" in *noflush*) ;; *"*filter"*) echo "$0" >>{seen} ;; esac\n'
        loader.replace(folder, name, f'{script}printf \'%s\\n\' "$text" | $REAL "$@"')
    for name in ("iptables-nft-save", "ip6tables-nft-save"):
        loader.replace(folder, name, 'exec $REAL "$@"')
    finished = loader.run()
    assert finished.returncode == 0, finished.stderr
    assert loaded_lines(saved()["ipv4"]) == sorted([*text_lines(RULES), ":OLD -"])
    assert seen.read_text().split() == [str(folder / "ip6tables-nft-restore")], "IPv6 had no table to change in place"


@pytest.mark.parametrize("backend", ["nft"])
def test_a_table_that_iptables_cannot_show_is_replaced(backend: str, tmp_path: Path, saved: Saved) -> None:
    """A rule made with nft that no match of iptables expresses does not keep the revision out."""
    loader = Loader(tmp_path, backend, SHELLS["dash"])
    loader.keep()
    assert loader.run().returncode == 0
    subprocess.run(["nft", "add rule ip filter INPUT ct mark set numgen inc mod 7"], check=True)
    assert loader.run().returncode == 0
    assert loaded_lines(saved()["ipv4"]) == text_lines(RULES)


FLOOD = """
import socket
targets = [(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), ("198.51.100.1", 8080)),
           (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), ("2001:db8::1", 8080))]
while True:
    for sender, address in targets:
        sender.sendto(b"x", address)
"""


def _received() -> int:
    """Packets that have come from the peer."""
    links = json.loads(
        subprocess.run(["ip", "-s", "-j", "link", "show", "guard0"], capture_output=True, check=True).stdout
    )
    return int(links[0]["stats64"]["rx"]["packets"])


RUNS = scaled(gate=10, long=100)


@pytest.mark.long
def test_a_second_run_never_opens(backend: str, tmp_path: Path, peer: Any) -> None:
    """Many runs, of a good revision and of a refused one in turn: a port that both drop gets nothing meanwhile.

    The packets come as fast as one core sends them: of those, a plain iptables-nft-restore lets one in every few runs
    through, as it makes chains with policy ACCEPT first.
    """
    loader = Loader(tmp_path, backend, SHELLS["dash"])
    reachable = RULES.replace("-A INPUT -i lo", "-A INPUT -p ipv6-icmp -j ACCEPT\n-A INPUT -i lo")
    loader.keep(ipv6=reachable)
    assert loader.run().returncode == 0
    receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    receiver.bind(("::", 8080))
    argv = ["nsenter", f"--net=/proc/{peer._holder.pid}/ns/net", sys.executable, "-I", "-S", "-c", FLOOD]
    flood = subprocess.Popen(argv)
    try:
        before = _received()
        for turn in range(RUNS):
            loader.keep(ipv4=RULES + REFUSED if turn % 2 else RULES, ipv6=reachable)
            assert loader.run().returncode == turn % 2
        with pytest.raises(BlockingIOError):
            receiver.recv(1, socket.MSG_DONTWAIT)
        assert _received() - before > 10_000
        for program in ("iptables", "ip6tables"):
            subprocess.run([f"{program}-{backend}", "-w", "5", "-P", "INPUT", "ACCEPT"], check=True)
        receiver.settimeout(LONGEST)
        awaited = {"::ffff:198.51.100.2", "2001:db8::2"}
        while awaited:  # What comes through once they are open shows that both were on their way all the time.
            awaited.discard(receiver.recvfrom(1)[1][0])
    finally:
        flood.kill()
        flood.wait()
        receiver.close()
