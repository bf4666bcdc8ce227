"""Which rule files differ between two revisions, and who owns the changed ones."""

from __future__ import annotations

import hashlib
import os
import pwd
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.store.model import FileChange, FileChangeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.ruleset.model import RuleFile

MOST_CHANGES = 100
"""Changed files that a revision records; the first ones, in the order of their names."""

Digests = tuple[tuple[str, str], ...]
"""Rule files in the order of their paths, each with a digest of its bytes."""


def digests_of(files: Iterable[RuleFile]) -> Digests:
    """The digest of each file."""
    return tuple((file.path, hashlib.sha256(file.data).hexdigest()) for file in files)


def changes_between(before: Digests, after: Digests) -> tuple[FileChange, ...]:
    """The files that were added, changed or removed, without their owners."""
    old, new = dict(before), dict(after)
    changes: list[FileChange] = []
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            changes.append(FileChange(path, FileChangeKind.ADDED))
        elif path not in new:
            changes.append(FileChange(path, FileChangeKind.REMOVED))
        elif old[path] != new[path]:
            changes.append(FileChange(path, FileChangeKind.CHANGED))
    return tuple(changes[:MOST_CHANGES])


def with_owners(changes: Iterable[FileChange]) -> tuple[FileChange, ...]:
    """The same with the owner of each file that is there (stat(2)). The owner of a removed file is not known."""
    return tuple(replace(change, owner=_owner(change.name)) for change in changes)


def _owner(path: str) -> str:
    try:
        uid = os.stat(path).st_uid  # noqa: PTH116 - Path() would not take every name that the directory can hold.
    except OSError:
        return ""
    return user_name(uid)


def user_name(uid: int) -> str:
    """The name of a user; the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
