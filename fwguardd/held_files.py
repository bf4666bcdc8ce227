"""``fwguardd --hold-files``: the next start applies no rule files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.store.revisions import RevisionStore

if TYPE_CHECKING:
    from fwguardd.settings import Settings


def hold_for_next_start(settings: Settings) -> int:
    """Hold the rule files that are there now, for the next start. Raises StoreError."""
    digest = take_snapshot(settings.rules_dir).digest
    RevisionStore(settings.state_dir, settings.keep_revisions).hold(digest, "fwguardd --hold-files")
    advice = "the next start does not apply them; after it, run: fwguardctl reload --confirm 60s"
    print(f"the files in {settings.rules_dir} are held until they change: {advice}")  # noqa: T201
    return 0
