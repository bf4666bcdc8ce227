"""What the process reads about this host and itself."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from fwguardd.kernel.privilege import RunningAlreadyError, local_group, only_process


def test_a_group_is_found_by_its_name() -> None:
    """The id of a group is that in /etc/group; a name that is not in it has none."""
    name, _, number, *_ = Path("/etc/group").read_text(encoding="utf-8").splitlines()[-1].split(":")
    assert local_group(name) == int(number)
    assert local_group("root") == 0
    assert local_group("no-such-group") is None


def test_one_process_has_the_state(tmp_path: Path) -> None:
    """Neither the same state directory nor the same runtime directory can be used twice; the message names the lock."""
    state, run, other = tmp_path / "state", tmp_path / "run", tmp_path / "other"
    with only_process(state, run):
        with (
            pytest.raises(RunningAlreadyError, match=f"process .* has locked {state}/lock"),
            only_process(state, other),
        ):
            pass
        with pytest.raises(RunningAlreadyError, match=f"it has locked {run}/lock"), only_process(other, run):
            pass
        with only_process(other, tmp_path / "run2"):
            pass
    with only_process(state, run):
        assert (state.stat().st_mode & 0o777, (run / "lock").exists()) == (0o700, True)


def test_a_daemon_of_an_earlier_version_is_kept_apart(tmp_path: Path) -> None:
    """It holds only the lock of the runtime directory."""
    run = tmp_path / "run"
    run.mkdir()
    with (run / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunningAlreadyError), only_process(tmp_path / "state", run):
            pass


def test_a_state_directory_that_cannot_be_used_prevents_no_start(tmp_path: Path) -> None:
    """What is wrong with it is for the store to report: the firewall is guarded without it."""
    (tmp_path / "state").write_text("")
    with only_process(tmp_path / "state", tmp_path / "run"):
        pass
