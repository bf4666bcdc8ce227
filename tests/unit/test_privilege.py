"""What the process reads about this host and itself."""

from __future__ import annotations

from pathlib import Path

from fwguardd.kernel.privilege import local_group


def test_a_group_is_found_by_its_name() -> None:
    """The id of a group is that in /etc/group; a name that is not in it has none."""
    name, _, number, *_ = Path("/etc/group").read_text(encoding="utf-8").splitlines()[-1].split(":")
    assert local_group(name) == int(number)
    assert local_group("root") == 0
    assert local_group("no-such-group") is None
