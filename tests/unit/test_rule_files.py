"""The rules directory as a trusted snapshot."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.rule_files import LARGEST_FILE, printable, read_rule_file, take_snapshot
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
        "a.tests.yaml",
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


def test_symlinks_are_followed_to_files_that_can_be_trusted(rules: Path, tmp_path: Path) -> None:
    """A link to a plain file counts as that file."""
    (tmp_path / "elsewhere").write_text(RULE)
    (rules / "a.rules").symlink_to(tmp_path / "elsewhere")
    assert _names(rules) == ["a.rules"]


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


def test_hostile_names_are_printed_safely(rules: Path) -> None:
    """A name with a newline or an escape sequence reaches no terminal as it is."""
    (rules / "a\n\x1b[31mb.txt").write_text(RULE)
    (finding,) = take_snapshot(rules).findings
    assert "\n" not in str(finding)
    assert "\x1b" not in str(finding)
    assert printable("a\n\x1b\udcffb") == "a\\n\\x1b\\udcffb"


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


def test_a_missing_directory_is_a_finding(tmp_path: Path) -> None:
    """A missing directory is an error that says what to do, and so is a file in its place."""
    assert _codes(tmp_path / "none") == ["no-directory"]
    (tmp_path / "file").write_text("")
    assert _codes(tmp_path / "file") == ["no-directory"]
