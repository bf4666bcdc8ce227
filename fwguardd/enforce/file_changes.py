"""Which rule files differ between two revisions, and who owns the changed ones."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.enforce.answering import answered
from fwguardd.kernel.local_users import local_user
from fwguardd.store.model import FileChange, FileChangeKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def with_owners(changes: Sequence[FileChange]) -> tuple[FileChange, ...]:
    """The same with the owner of each file that is there (stat(2)).

    The owner of a removed file is not known, and none is where the directory does not answer.
    """
    if not changes:
        return ()
    directory = Path(changes[0].name).parent
    try:
        owners = answered(directory, partial(_owners, [change.name for change in changes]))
    except OSError:
        return tuple(changes)
    return tuple(replace(change, owner=owner) for change, owner in zip(changes, owners, strict=True))


def _owners(paths: Iterable[str]) -> list[str]:
    return list(map(_owner, paths))


def _owner(path: str) -> str:
    try:
        uid = os.stat(path).st_uid  # noqa: PTH116 - Path() would not take every name that the directory can hold.
    except OSError:
        return ""
    return local_user(uid) or str(uid)
