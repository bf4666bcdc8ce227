"""The watch of the rules directory: the path may lead to another directory, and the kernel may refuse a watch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., Any]

SLOW = "drift_interval: 1h\n"
"""Nothing is found by the timer here: what is found, the watch has found."""

pytestmark = pytest.mark.parametrize("backend", ["nft"])

RULES = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"
OTHER = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 2222 -j ACCEPT\n"


def _copy(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "10.rules").write_text(OTHER)
    return folder


def _started(start_daemon: Start, **named: Any) -> Any:
    daemon = start_daemon({"10.rules": RULES}, SLOW, **named)
    daemon.event("rules.applied", revision=1)
    daemon.end_pass()
    return daemon


def _directory_renamed(rules: Path) -> None:
    _copy(rules.with_name("new"))
    rules.rename(rules.with_name("old"))
    rules.with_name("new").rename(rules)


def _directory_made_again(rules: Path) -> None:
    shutil.rmtree(rules)
    _copy(rules)


@pytest.mark.parametrize("replace", [_directory_renamed, _directory_made_again])
def test_a_directory_that_is_replaced_is_read_at_once(start_daemon: Start, replace: Callable[[Path], None]) -> None:
    """Another directory of the same name counts as a change, and its later changes are noticed too."""
    daemon = _started(start_daemon)
    replace(daemon.rules)
    daemon.event("rules.applied", revision=2)
    daemon.drop("10.rules", RULES)
    daemon.event("rules.applied", revision=3)


def test_a_link_on_the_path_that_is_replaced_is_noticed(start_daemon: Start, tmp_path: Path) -> None:
    """A directory that is deployed by replacing a symbolic link above it is read at once, each time, and so are changes
    of files in the directory that a link leads to."""
    (tmp_path / "one" / "deep").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "deep" / "10.rules").write_text(RULES)
    _copy(tmp_path / "two" / "deep")
    (tmp_path / "current").symlink_to("one")
    (tmp_path / "rules").symlink_to("current/deep")
    daemon = _started(start_daemon)
    for revision, target in ((2, "two"), (3, "one")):
        (tmp_path / "next").symlink_to(target)
        (tmp_path / "next").rename(tmp_path / "current")
        daemon.event("rules.applied", revision=revision)
    daemon.end_pass()
    daemon.drop("10.rules", OTHER)
    daemon.event("rules.applied", revision=4)


def test_a_mount_over_the_directory_is_noticed(start_daemon: Start, tmp_path: Path) -> None:
    """A file system that is mounted over the directory, or taken away from it, is no change of any file; the list of
    mounts says it."""
    other = _copy(tmp_path / "other")
    enter = ("unshare", "--mount", "--propagation", "private")
    daemon = _started(start_daemon, enter=enter)
    inside = ["nsenter", f"--mount=/proc/{daemon.process.pid}/ns/mnt"]
    subprocess.run([*inside, "mount", "--bind", str(other), str(daemon.rules)], check=True)
    daemon.event("rules.applied", revision=2)
    (other / "10.rules").write_text(RULES)
    daemon.event("rules.applied", revision=3)
    subprocess.run([*inside, "umount", str(daemon.rules)], check=True)
    daemon.drop("10.rules", OTHER)
    daemon.event("rules.applied", revision=4)


REFUSING = """
import errno, sys
from watchdog.observers import inotify_c
from fwguardd import daemon
from pathlib import Path

def refuse(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

real = inotify_c.Inotify.__init__

def init(self, *args, **named):
    if not Path(sys.argv[1]).exists():
        refuse()
    real(self, *args, **named)

inotify_c.Inotify.__init__ = init
sys.exit(daemon.main(sys.argv[5:]))
"""
"""A daemon whose watches are refused, as by fs.inotify.max_user_watches, until a file exists."""


def test_a_refused_watch_is_reported_and_the_timer_finds_changes(start_daemon: Start, tmp_path: Path) -> None:
    """The event names the limit. Changes are found when the rules are compared; once the kernel takes the watch, they
    are found at once again."""
    enter = [sys.executable, "-c", REFUSING, str(tmp_path / "permitted")]
    daemon = start_daemon({"10.rules": RULES}, "drift_interval: 300ms\n", enter=enter)
    assert "fs.inotify.max_user_watches is reached" in daemon.event("rules.unnoticed")["reason"]
    daemon.event("rules.applied", revision=1)
    daemon.drop("10.rules", OTHER)
    daemon.event("rules.applied", revision=2)
    (tmp_path / "permitted").touch()
    daemon.drop("10.rules", RULES)
    daemon.event("rules.applied", revision=3)
    daemon.stop()
    assert sum(event["event"] == "rules.unnoticed" for event in daemon.all_events()) == 1
