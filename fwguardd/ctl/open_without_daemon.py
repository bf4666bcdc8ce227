"""fwguardctl open where no daemon answers: whoever is about to lose a host must not have to start one first.

The same act as the daemon's, with the daemon's lock held, recorded as a revision; a daemon that is started later leaves
everything open until a reload.
"""

from __future__ import annotations

import asyncio
import getpass
import json
from typing import TYPE_CHECKING, Any

from fwguardd import documents
from fwguardd.enforce.context import Done
from fwguardd.kernel.iptables import find_tool
from fwguardd.kernel.privilege import lock_runtime_dir, require_privilege
from fwguardd.supervisor import Supervisor

if TYPE_CHECKING:
    from fwguardd.events import EventKind
    from fwguardd.settings import Settings

DONE, FAILED = 0, 5


def open_without_daemon(settings: Settings, *, as_json: bool) -> int:
    """Accept everything now. Raises MissingPrivilegeError, RunningAlreadyError, StoreError, KernelError."""
    require_privilege()
    with lock_runtime_dir(settings.runtime_dir):
        supervisor = Supervisor(settings, find_tool(settings.backend), _silent)
        try:
            before = supervisor.state
            outcome = asyncio.run(supervisor.open_firewall(f"{getpass.getuser()}, without a daemon"))
        finally:
            supervisor.close()
    if as_json:
        print(json.dumps(documents.outcome(supervisor.context(), outcome, before)))
    else:
        told = outcome.state.sentence if isinstance(outcome, Done) else getattr(outcome, "reason", "")
        print(f"no daemon runs; done without it: {told}")
    return DONE if isinstance(outcome, Done) else FAILED


def _silent(_kind: EventKind, _message: str, /, **_fields: Any) -> None:
    """The outcome tells it all; there is no log to tell it to."""
