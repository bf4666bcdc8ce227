"""The rules directory as a trusted snapshot."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.rule_files import LARGEST_FILE, SHORT, read_fetched_file, read_rule_file, take_snapshot
from fwguardd.escaping import printable, printable_name
from fwguardd.kernel.processes import TRANSIENT
from fwguardd.ruleset.model import RuleFile
from tests.waiting import must_end

if TYPE_CHECKING:
    from collections.abc import Callable

RULE = "-A INPUT -p tcp -j ACCEPT\n"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A rules directory."""
    folder = tmp_path / "rules"
    folder.mkdir(mode=0o755)
    return folder


def _codes(folder: Path) -> list[str]:
    return [finding.code for finding in take_snapshot(folder).findings]


def _names(folder: Path) -> list[str]:
    return [Path(file.path).name for file in take_snapshot(folder).files]


def test_files_come_in_byte_order(rules: Path) -> None:
    """Names are ordered by their bytes, whatever the locale says."""
    for name in ("b.rules", "a.rules", "Z.rules", "é.rules", "10.rules", "9.rules"):
        (rules / name).write_text(RULE)
    assert _names(rules) == ["10.rules", "9.rules", "Z.rules", "a.rules", "b.rules", "é.rules"]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.rules",
        "a.rules~",
        "a.rules.bak",
        ".a.rules.swp",
        "a.rules.dpkg-dist",
        "a.rules.rpmnew",
        "#a.rules#",
        "a.rules.ucf-old",
        "a.rules.disabled",
        "README",
        "README.tests.yaml",
    ],
)
def test_leftovers_are_passed_over_in_silence(rules: Path, name: str) -> None:
    """Files that editors and package managers leave behind are ignored without a warning."""
    (rules / name).write_text("nonsense\n")
    assert (_names(rules), _codes(rules)) == ([], [])


def test_another_ending_gets_a_warning(rules: Path) -> None:
    """Whoever dropped web.txt learns why nothing happened, and how to name it."""
    (rules / "web.txt").write_text(RULE)
    (finding,) = take_snapshot(rules).findings
    assert finding.code == "ignored-file"
    assert 'name it "web.rules"' in finding.hint


def test_policy_tests_are_read_beside_the_rules(rules: Path) -> None:
    """A tests file is part of the snapshot and its digest; the warning about another YAML file proposes a name."""
    (rules / "a.rules").write_text(RULE)
    before = take_snapshot(rules)
    (rules / "policy.tests.yaml").write_text("tests: []\n")
    after = take_snapshot(rules)
    assert [Path(file.path).name for file in after.tests_files] == ["policy.tests.yaml"]
    assert (before.tests_files, before.digest != after.digest) == ((), True)
    (rules / "web.test.yml").write_text("tests: []\n")
    (finding,) = take_snapshot(rules).findings
    assert (finding.code, 'name it "web.tests.yaml" if it holds policy tests' in finding.hint) == ("ignored-file", True)


def test_symlinks_are_followed_to_files_that_can_be_trusted(rules: Path, tmp_path: Path) -> None:
    """A link to a plain file counts as that file, also by way of other links, relative ones and "..", to any depth."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "elsewhere.rules").write_text(RULE)
    (tmp_path / "way").symlink_to("deep/er")
    (tmp_path / "deep" / "b.rules").symlink_to("../elsewhere.rules")
    (rules / "a.rules").symlink_to(tmp_path / "elsewhere.rules")
    (rules / "b.rules").symlink_to("../way/../b.rules")
    assert (_names(rules), _codes(rules)) == (["a.rules", "b.rules"], [])
    (tmp_path / "the-rules").symlink_to(rules)
    assert _names(tmp_path / "the-rules") == ["a.rules", "b.rules"]


@pytest.mark.parametrize("kind", ["loop", "dangling", "fifo", "device", "directory", "socket"])
def test_what_is_no_plain_file_is_refused_at_once(rules: Path, kind: str) -> None:
    """Loops, dangling links, FIFOs, devices and directories are findings; none hangs, none raises."""
    path = rules / "a.rules"
    make: dict[str, Callable[[], object]] = {
        "loop": lambda: path.symlink_to(path),
        "dangling": lambda: path.symlink_to("/nonexistent"),
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "directory": path.mkdir,
        "socket": lambda: path.symlink_to("/dev/log"),
    }
    make[kind]()
    with must_end("reading the directory"):
        assert len(_codes(rules)) == 1
        assert _codes(rules)[0] in {"not-a-file", "unreadable-file"}


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_files_that_others_can_write_are_refused(rules: Path, mode: int) -> None:
    """Whoever can write a rule file decides who reaches this host."""
    (rules / "a.rules").write_text(RULE)
    (rules / "a.rules").chmod(mode)
    assert _codes(rules) == ["untrusted-mode"]


def test_a_directory_that_others_can_write_is_refused(rules: Path) -> None:
    """The same holds for the directory: who can write it can replace any file in it."""
    (rules / "a.rules").write_text(RULE)
    rules.chmod(0o777)
    assert (_names(rules), _codes(rules)) == ([], ["untrusted-mode"])


@pytest.mark.root
def test_files_of_other_users_are_refused(rules: Path) -> None:
    """A file counts only if root or the daemon's own user owns it."""
    (rules / "a.rules").write_text(RULE)
    os.chown(rules / "a.rules", 65534, 65534)
    (finding,) = take_snapshot(rules).findings
    assert (finding.code, finding.hint) == ("untrusted-owner", f"chown root {rules}/a.rules")


@pytest.mark.root
def test_a_draft_may_belong_to_any_user(rules: Path) -> None:
    """A directory that the daemon does not load is read, whatever its owner and mode and those of its files are."""
    (rules / "a.rules").write_text(RULE)
    (rules / "a.rules").chmod(0o664)
    os.chown(rules / "a.rules", 65534, 65534)
    os.chown(rules, 65534, 65534)
    rules.chmod(0o775)
    snapshot = take_snapshot(rules, draft=True)
    assert (len(snapshot.files), snapshot.findings) == (1, ())
    assert isinstance(read_rule_file(rules / "a.rules", draft=True), RuleFile)


def test_a_file_beyond_bounds_is_refused_unread(rules: Path) -> None:
    """A sparse file of a terabyte costs nothing to refuse."""
    with (rules / "a.rules").open("wb") as file:
        file.truncate(1 << 40)
    assert _codes(rules) == ["file-too-large"]
    with (rules / "a.rules").open("wb") as file:
        file.truncate(LARGEST_FILE)
    assert _names(rules) == ["a.rules"]


def test_a_file_that_changes_while_it_is_read_is_whole_or_refused(rules: Path) -> None:
    """A snapshot holds a state that the file had, never the first half of one and the second half of another."""
    path, size = rules / "a.rules", 400_000
    path.write_bytes(b"a" * size)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for letter in (b"a", b"b"):
                with path.open("r+b") as file:
                    file.write(letter * size)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            snapshot = take_snapshot(rules)
            codes = [finding.code for finding in snapshot.findings]
            assert codes in (["changing-file"], []), codes
    finally:
        stop.set()
        writer.join()
    assert _names(rules) == ["a.rules"]


@pytest.mark.root
def test_a_link_through_the_directory_of_another_user_is_refused(rules: Path, tmp_path: Path) -> None:
    """Another user could point such a link to any file, and so choose the rules or have the file quoted."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "good.rules").write_text(RULE)
    (home / "a.rules").symlink_to(tmp_path / "good.rules")
    (rules / "a.rules").symlink_to(home / "a.rules")
    assert (_names(rules), _codes(rules)) == (["a.rules"], [])
    os.chown(home, 65534, 65534)
    assert (_names(rules), _codes(rules)) == ([], ["untrusted-owner"])
    os.chown(home, 0, 0)
    home.chmod(0o775)
    assert (_names(rules), _codes(rules)) == ([], ["untrusted-mode"])


def test_nothing_is_quoted_of_a_file_that_is_not_a_rule_file(rules: Path, tmp_path: Path) -> None:
    """A message about a rule quotes it, so a link has to lead to a file whose name says that it holds rules."""
    (tmp_path / "shadow").write_text("root:secret\n")
    (rules / "a.rules").symlink_to(tmp_path / "shadow")
    (finding,) = take_snapshot(rules).findings
    assert (finding.code, "secret" in f"{finding}{finding.hint}") == ("untrusted-link", False)


@pytest.mark.parametrize("fault", [pytest.param("owner", marks=pytest.mark.root), "group writes", "others write"])
def test_a_directory_above_that_others_can_write_is_refused(tmp_path: Path, fault: str) -> None:
    """Who can write any directory above can put another one in place of the rules directory."""
    above = tmp_path / "above"
    rules = above / "between" / "rules"
    rules.mkdir(parents=True)
    (rules / "a.rules").write_text(RULE)
    assert _names(rules) == ["a.rules"]
    if fault == "owner":
        os.chown(above, 65534, 65534)
    else:
        above.chmod({"group writes": 0o775, "others write": 0o757}[fault])
    (finding,) = take_snapshot(rules).findings
    assert str(above) in finding.message
    assert finding.code == {"owner": "untrusted-owner"}.get(fault, "untrusted-mode")
    assert take_snapshot(rules, draft=True).findings == ()


def test_below_a_sticky_directory_only_a_directory_counts(tmp_path: Path) -> None:
    """In /tmp another user can neither replace a directory of root nor bring one, but may bring a file or a link."""
    sticky = tmp_path / "tmp"
    (sticky / "rules").mkdir(parents=True)
    sticky.chmod(0o1777)
    (sticky / "rules" / "a.rules").write_text(RULE)
    (sticky / "b.rules").write_text(RULE)
    (sticky / "rules" / "b.rules").symlink_to(sticky / "b.rules")
    snapshot = take_snapshot(sticky / "rules")
    assert [Path(file.path).name for file in snapshot.files] == ["a.rules"]
    assert [finding.code for finding in snapshot.findings] == ["untrusted-mode"]
    (sticky / "link").symlink_to("rules")
    assert _codes(sticky / "link") == ["untrusted-mode"]
    assert _codes(sticky) == ["untrusted-mode"]


def test_an_entry_that_cannot_be_looked_at_blinds_nobody(rules: Path) -> None:
    """A link that leads nowhere a system call can go is a finding where it has the name of a rule file, is never
    looked at where it has another, and never keeps the other files from being read."""
    (rules / "good.rules").write_text(RULE)
    for name in ("long", "loop", "deep"):
        target = {"long": "x" * 300, "loop": f"{name}.rules", "deep": "/proc/self/fd/999999/a.rules"}[name]
        (rules / f"{name}.rules").symlink_to(target)
        (rules / name).symlink_to(target)
        (rules / f"{name}.bak").symlink_to(target)
    snapshot = take_snapshot(rules)
    assert [Path(file.path).name for file in snapshot.files] == ["good.rules"]
    assert sorted(finding.code for finding in snapshot.findings) == ["ignored-file"] * 3 + ["unreadable-file"] * 3


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENAMETOOLONG, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["stat", "open", "scandir", "fstat", "pread", "readlink"])
def test_no_system_call_that_fails_raises(
    rules: Path, tmp_path: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call fails, the answer is a snapshot with a finding; where the process lacks descriptors or memory, with
    one that says nothing about the files."""
    (tmp_path / "elsewhere.rules").write_text(RULE)
    (rules / "a.rules").symlink_to(tmp_path / "elsewhere.rules")

    def fail(*_args: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    snapshot = take_snapshot(rules)
    monkeypatch.undo()
    codes = {finding.code for finding in snapshot.findings}
    assert len(snapshot.findings) == 1
    assert codes <= ({SHORT} if number in TRANSIENT else {"no-directory", "unreadable-file"})


def test_two_names_never_become_one(rules: Path) -> None:
    """A name with a control character and a name with the escape sequence for it are two files."""
    names = ["a\x1b.rules", "a\\x1b.rules", "a\\\\x1b.rules", "a\udcff.rules", "a\\udcff.rules"]
    for name in names:
        (rules / name).write_text(RULE)
    assert len({file.path for file in take_snapshot(rules).files}) == len(names)
    assert len({printable_name(name) for name in names}) == len(names)


def test_hostile_names_are_printed_safely(rules: Path) -> None:
    """A name with a newline or an escape sequence reaches no terminal as it is."""
    (rules / "a\n\x1b[31mb.txt").write_text(RULE)
    (finding,) = take_snapshot(rules).findings
    assert "\n" not in str(finding)
    assert "\x1b" not in str(finding)
    assert printable("a\n\x1b\udcffb") == printable_name("a\n\x1b\udcffb") == "a\\n\\x1b\\udcffb"


def test_the_digest_tells_any_difference(rules: Path) -> None:
    """Another byte, another name, another finding: another digest; the same directory: the same."""
    (rules / "a.rules").write_text(RULE)
    digests = [take_snapshot(rules).digest]
    assert take_snapshot(rules).digest == digests[0]
    (rules / "a.rules").write_text(RULE + "#\n")
    digests.append(take_snapshot(rules).digest)
    (rules / "a.rules").rename(rules / "b.rules")
    digests.append(take_snapshot(rules).digest)
    (rules / "c.txt").write_text("")
    digests.append(take_snapshot(rules).digest)
    assert len(set(digests)) == 4


def test_a_file_is_read_whatever_its_times_say(rules: Path) -> None:
    """One that was rewritten in place with as many bytes, and has its time of change back, is another one."""
    file = rules / "a.rules"
    file.write_bytes(b"-A INPUT -i a")
    before, times = take_snapshot(rules), file.stat()
    with file.open("r+b") as opened:
        opened.write(b"-A INPUT -i b")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = take_snapshot(rules)
    assert after.digest != before.digest
    assert after.files[0].data == b"-A INPUT -i b"


def test_a_missing_directory_is_a_finding(tmp_path: Path) -> None:
    """A missing directory is an error that says what to do, and so is a file in its place."""
    assert _codes(tmp_path / "none") == ["no-directory"]
    (tmp_path / "file").write_text("")
    assert _codes(tmp_path / "file") == ["no-directory"]


def test_hints_propose_names_that_are_free(tmp_path: Path) -> None:
    """The files of iptables-persistent keep their family, and no name is proposed twice or taken already."""
    for name in ("rules.v4", "rules.v6", "web", "web.conf", "web.rules"):
        (tmp_path / name).write_text("-P INPUT ACCEPT\n")
    hints = [finding.hint.split('"')[1] for finding in take_snapshot(tmp_path, draft=True).findings]
    assert hints == ["rules.v4.rules", "rules.v6.rules", "web-2.rules", "web-3.rules"]


def test_a_link_in_a_directory_of_another_user_is_not_followed(tmp_path: Path) -> None:
    """It could lead to a file that only root may read, and messages quote lines."""
    (tmp_path / "secret").write_text("root:hash\n")
    (tmp_path / "a.set").symlink_to(tmp_path / "secret")
    outcome = read_fetched_file(tmp_path / "a.set")
    assert not isinstance(outcome, RuleFile) and outcome.code == "unreadable-file"
    assert isinstance(read_fetched_file(tmp_path / "secret"), RuleFile)
