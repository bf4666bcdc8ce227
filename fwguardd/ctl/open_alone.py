"""fwguardctl open where no daemon answers: whoever is about to lose a host must not have to start one first.

The same act as the daemon's, with the daemon's lock held, recorded as a revision; a daemon that is started later leaves
everything open until a reload.
"""

from __future__ import annotations

import asyncio
import getpass
import json
from typing import TYPE_CHECKING, Any

from fwguardd import report
from fwguardd.enforce.world import Done
from fwguardd.kernel.iptables import find_tool
from fwguardd.kernel.privilege import lock_runtime_dir, require_privilege
from fwguardd.steward import Steward

if TYPE_CHECKING:
    from fwguardd.events import EventKind
    from fwguardd.settings import Settings

DONE, FAILED = 0, 5


def open_alone(settings: Settings, *, as_json: bool) -> int:
    """Accept everything now. Raises MissingPrivilegeError, RunningAlreadyError, StoreError, KernelError."""
    require_privilege()
    with lock_runtime_dir(settings.runtime_dir):
        steward = Steward(settings, find_tool(settings.backend), _silent)
        try:
            before = steward.memory
            outcome = asyncio.run(steward.open_up(f"{getpass.getuser()}, without a daemon"))
        finally:
            steward.close()
    if as_json:
        print(json.dumps(report.outcome(steward.world(), outcome, before)))
    else:
        told = outcome.memory.sentence if isinstance(outcome, Done) else getattr(outcome, "reason", "")
        print(f"no daemon runs; done without it: {told}")
    return DONE if isinstance(outcome, Done) else FAILED


def _silent(_kind: EventKind, _message: str, /, **_fields: Any) -> None:
    """The outcome tells it all; there is no log to tell it to."""
