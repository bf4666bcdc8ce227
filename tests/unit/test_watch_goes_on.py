"""The watch of the rules directory goes on whatever an attempt to watch has raised."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest
from watchdog.observers.inotify_c import Inotify

from fwguardd.enforce import watch
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from pathlib import Path

ERRORS = [
    (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    (RuntimeError("can't start new thread"), "RuntimeError: can't start new thread"),
    (MemoryError(), "MemoryError: "),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS)
def test_an_attempt_that_fails_is_reported_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    """Where a link on the path cannot be read, or the host lacks memory or a thread for the watch, the reason is
    reported; the next attempt watches the directory, and a change in it is noticed."""
    (tmp_path / "one").mkdir()
    (tmp_path / "rules").symlink_to("one")
    refused: list[str] = []
    watched, changed = threading.Event(), threading.Event()

    def fails(_path: str) -> str:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(os, "readlink", fails)
        followed = watch.DirectoryWatch(tmp_path / "rules", watched.set, pytest.fail, refused.append)
    try:
        assert refused == [reason]
        followed.renew()
        assert watched.wait(LONGEST)  # The directory at the end of the path is another one than none.
        followed._notice._on_change = changed.set
        (tmp_path / "one" / "10.rules").touch()
        assert changed.wait(LONGEST)
    finally:
        followed.close()


def test_a_descriptor_of_another_is_not_closed(tmp_path: Path) -> None:
    """The library closes the watch of a removed directory twice. By the second time the number of its descriptor may be
    that of a socket to the kernel, or to a rehearsal."""
    library = Inotify(os.fsencode(tmp_path))
    number = library._inotify_fd
    library.close()
    another = os.open(os.devnull, os.O_RDONLY)
    os.dup2(another, number)
    library.close()
    os.fstat(number)
    for descriptor in {another, number}:
        os.close(descriptor)
