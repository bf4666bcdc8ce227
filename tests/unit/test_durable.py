"""Files that are whole or not there; and the disk in memory that other tests use, held to the real one."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.store.durable import (
    HostSystem,
    NotRegularError,
    NotSyncedError,
    make_directory,
    read_chunks,
    read_file,
    remove_file,
    remove_tree,
    replace_file,
    replace_symlink,
    sync_directory,
    write_new,
)
from tests.property.unreliable_disk import MemoryDisk, StoppedError, Tapped, failing_at, stopping_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.store.durable import System


class Place:
    """A system, and a directory on it that is empty at first."""

    def __init__(self, system: System, root: Path) -> None:
        self.system = system
        self.root = root

    def names(self) -> set[str]:
        """The names in the directory."""
        return set(self.system.listdir(self.root))


@pytest.fixture(params=["host", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The real system, and the one in memory."""
    if request.param == "host":
        return Place(HostSystem(), tmp_path)
    disk = MemoryDisk()
    disk.mkdir(Path("/place"), 0o700)
    return Place(disk, Path("/place"))


def test_a_file_is_replaced_and_leaves_nothing_else(place: Place) -> None:
    """After a replacement the name has the new bytes, and no temporary name is left."""
    for data in (b"", b"one", b"two" * 100_000):
        replace_file(place.system, place.root / "a", data)
        assert read_file(place.system, place.root / "a") == data
    assert place.names() == {"a"}


def test_a_leftover_of_an_interrupted_write_is_no_hindrance(place: Place) -> None:
    """A temporary file that a killed process left is written over."""
    write_new(place.system, place.root / "a.tmp", b"a longer text that was left")
    replace_file(place.system, place.root / "a", b"new")
    assert read_file(place.system, place.root / "a") == b"new"
    place.system.symlink("nowhere", place.root / "l.tmp")
    replace_symlink(place.system, place.root / "l", "a")
    assert place.system.readlink(place.root / "l") == "a"
    assert place.names() == {"a", "l"}


def test_a_symlink_is_replaced(place: Place) -> None:
    """A symlink leads to the new target after a replacement, and no temporary name is left."""
    for target in ("one", "two"):
        replace_symlink(place.system, place.root / "l", target)
        assert place.system.readlink(place.root / "l") == target
    assert place.names() == {"l"}


def test_removing_what_is_gone_is_no_error(place: Place) -> None:
    """A file that is to be removed may be gone already."""
    replace_file(place.system, place.root / "a", b"")
    remove_file(place.system, place.root / "a")
    remove_file(place.system, place.root / "a")
    assert place.names() == set()


def test_a_tree_is_removed_without_following_symlinks(place: Place) -> None:
    """Removing a directory takes all that is in it, and nothing that a symlink in it leads to."""
    make_directory(place.system, place.root / "kept")
    write_new(place.system, place.root / "kept" / "file", b"")
    make_directory(place.system, place.root / "tree")
    make_directory(place.system, place.root / "tree" / "deep")
    write_new(place.system, place.root / "tree" / "deep" / "file", b"")
    place.system.symlink("../kept", place.root / "tree" / "link")
    remove_tree(place.system, place.root / "tree")
    assert place.names() == {"kept"}
    assert place.system.listdir(place.root / "kept") == ["file"]


def test_a_directory_tells_whether_it_was_made(place: Place) -> None:
    """Making a directory that exists is not an error, and the result says which of the two it was."""
    assert make_directory(place.system, place.root / "d")
    assert not make_directory(place.system, place.root / "d")
    assert place.system.stat(place.root / "d").st_mode & 0o777 == 0o700
    sync_directory(place.system, place.root / "d")


def test_only_plain_files_are_read(place: Place) -> None:
    """A symlink or a directory in the place of a file is an error of its own kind, and no symlink is followed."""
    write_new(place.system, place.root / "a", b"secret")
    place.system.symlink("a", place.root / "l")
    make_directory(place.system, place.root / "d")
    for name in ("l", "d"):
        with pytest.raises(NotRegularError):
            read_file(place.system, place.root / name)


def test_a_fifo_does_not_stop_a_reader(tmp_path: Path) -> None:
    """A FIFO in the place of a file is noticed at once: the store does not wait for a writer."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotRegularError):
        read_file(HostSystem(), tmp_path / "fifo")


def test_files_are_read_in_pieces(place: Place) -> None:
    """A large file is handed out in pieces of bounded size."""
    write_new(place.system, place.root / "a", bytes(1 << 20))
    pieces = list(read_chunks(place.system, place.root / "a"))
    assert len(pieces) > 1
    assert b"".join(pieces) == bytes(1 << 20)


REFUSALS: dict[str, tuple[int, Callable[[System, Path], object]]] = {
    "open what is not there": (errno.ENOENT, lambda system, root: read_file(system, root / "no")),
    "open below a file": (errno.ENOTDIR, lambda system, root: read_file(system, root / "file" / "x")),
    "write a directory": (errno.EISDIR, lambda system, root: write_new(system, root / "dir", b"")),
    "write through a symlink": (errno.ELOOP, lambda system, root: write_new(system, root / "link", b"")),
    "write below nothing": (errno.ENOENT, lambda system, root: write_new(system, root / "no" / "x", b"")),
    "force a file as a directory": (errno.ENOTDIR, lambda system, root: sync_directory(system, root / "file")),
    "list a file": (errno.ENOTDIR, lambda system, root: system.listdir(root / "file")),
    "list nothing": (errno.ENOENT, lambda system, root: system.listdir(root / "no")),
    "make what is there": (errno.EEXIST, lambda system, root: system.mkdir(root / "file", 0o700)),
    "link what is there": (errno.EEXIST, lambda system, root: system.symlink("x", root / "link")),
    "rename nothing": (errno.ENOENT, lambda system, root: system.rename(root / "no", root / "x")),
    "rename a file over a directory": (errno.EISDIR, lambda system, root: system.rename(root / "file", root / "dir")),
    "rename a directory over a file": (errno.ENOTDIR, lambda system, root: system.rename(root / "dir", root / "file")),
    "rename over a full directory": (errno.ENOTEMPTY, lambda system, root: system.rename(root / "dir", root / "full")),
    "unlink a directory": (errno.EISDIR, lambda system, root: system.unlink(root / "dir")),
    "unlink nothing": (errno.ENOENT, lambda system, root: system.unlink(root / "no")),
    "remove a file as a directory": (errno.ENOTDIR, lambda system, root: system.rmdir(root / "file")),
    "remove a full directory": (errno.ENOTEMPTY, lambda system, root: system.rmdir(root / "full")),
    "read a file as a symlink": (errno.EINVAL, lambda system, root: system.readlink(root / "file")),
    "stat nothing": (errno.ENOENT, lambda system, root: system.stat(root / "no")),
    "lstat nothing": (errno.ENOENT, lambda system, root: system.lstat(root / "no")),
    "stat a dangling symlink": (errno.ENOENT, lambda system, root: system.stat(root / "link")),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_disk_in_memory_refuses_what_the_real_one_refuses(place: Place, refusal: str) -> None:
    """Both systems refuse the same calls with the same error, and change nothing by it."""
    write_new(place.system, place.root / "file", b"data")
    make_directory(place.system, place.root / "dir")
    make_directory(place.system, place.root / "full")
    write_new(place.system, place.root / "full" / "x", b"")
    place.system.symlink("nowhere", place.root / "link")
    before = place.names()
    code, act = REFUSALS[refusal]
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        act(place.system, place.root)
    assert caught.value.errno == code
    assert place.names() == before
    assert read_file(place.system, place.root / "file") == b"data"


def test_a_rename_moves_between_directories(place: Place) -> None:
    """A file and a directory can be moved, the latter over an empty one."""
    make_directory(place.system, place.root / "d")
    make_directory(place.system, place.root / "e")
    write_new(place.system, place.root / "a", b"x")
    place.system.rename(place.root / "a", place.root / "d" / "b")
    place.system.rename(place.root / "d", place.root / "e")
    assert place.names() == {"e"}
    assert read_file(place.system, place.root / "e" / "b") == b"x"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("for_good", [True, False])
def test_a_failure_leaves_the_old_bytes(place: Place, code: int, for_good: bool) -> None:  # noqa: FBT001
    """Whichever call fails, the name holds the old bytes; or the new ones, and the error says that it does."""
    path = place.root / "a"
    count = _calls(place, lambda system: replace_file(system, path, b"old" * 500))
    for number in range(count):
        replace_file(place.system, path, b"old" * 500)
        tapped = Tapped(place.system, failing_at(number, code, for_good=for_good))
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            replace_file(tapped, path, b"new" * 500)
        there = b"new" * 500 if isinstance(caught.value, NotSyncedError) else b"old" * 500
        assert read_file(place.system, path) == there
        assert for_good or place.names() == {"a"}


def test_a_stop_leaves_the_old_or_the_new_bytes(place: Place) -> None:
    """Before whichever call the process ends, the name holds the old bytes whole or the new bytes whole."""
    path = place.root / "a"
    count = _calls(place, lambda system: replace_file(system, path, b"old" * 500))
    seen: list[bytes] = []
    for number in range(count):
        replace_file(place.system, path, b"old" * 500)
        with pytest.raises(StoppedError) if number < count - 1 else contextlib.nullcontext():
            replace_file(Tapped(place.system, stopping_at(number)), path, b"new" * 500)
        seen.append(read_file(place.system, path)[:3])
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {b"old", b"new"}


def test_a_directory_that_cannot_be_forced_is_taken_as_it_is(tmp_path: Path) -> None:
    """A file system that answers EINVAL for a directory has nothing to force, and that is not a failure."""

    def reached(_number: int, call: str) -> None:
        if call == "fsync":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    sync_directory(Tapped(HostSystem(), reached), tmp_path)


def test_the_disk_in_memory_forgets_what_was_not_forced() -> None:
    """After a power cut at the worst instant a file is not there, or there without its bytes; once forced it stays."""
    disk = MemoryDisk()
    write_new(disk, Path("/a"), b"data")
    assert disk.after_power_cut(lambda _: 0).listdir(Path("/")) == []
    assert disk.after_power_cut(lambda n: n - 1).data(Path("/a")) == b"data"
    sync_directory(disk, Path("/"))
    assert disk.after_power_cut(lambda _: 0).data(Path("/a")) == b"data"
    fd = disk.open(Path("/a"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    disk.write(fd, memoryview(b"other"))
    assert disk.after_power_cut(lambda _: 0).data(Path("/a")) == b"data"
    assert disk.after_power_cut(lambda n: n - 1).data(Path("/a")) == bytes(5)


def _calls(place: Place, act: Callable[[System], None]) -> int:
    """How many calls an act makes."""
    tapped = Tapped(place.system, stopping_at(None))
    act(tapped)
    return len(tapped.calls)
