"""fwguardctl open where no daemon answers: an emergency must not require a daemon to be started first.

The same action as the daemon's, with the daemon's lock held, recorded as a revision. A daemon that is started later
leaves everything open until a reload.
"""

from __future__ import annotations

import getpass
import json
from typing import TYPE_CHECKING, Any

from fwguardd import documents
from fwguardd.enforce.context import Done, RecordedHost
from fwguardd.kernel.iptables import find_tool
from fwguardd.kernel.privilege import boot_id, kernel_release, only_process, require_privilege
from fwguardd.progress import Progress
from fwguardd.worker import Worker
from fwguardd.worker_report import Orders

if TYPE_CHECKING:
    from fwguardd.control.documents import OutcomeDocument
    from fwguardd.events import EventKind
    from fwguardd.settings import Settings

DONE, FAILED = 0, 5


def open_without_daemon(settings: Settings, *, as_json: bool) -> int:
    """Accept everything now. Raises MissingPrivilegeError, RunningAlreadyError, StoreError, KernelError."""
    require_privilege()
    orders = Orders(settings)
    with only_process(settings.state_dir, settings.runtime_dir, guarding=True):
        host = RecordedHost(find_tool(settings.backend), kernel_release(), boot_id())
        worker = Worker(settings, host, _discard, Progress())
        try:
            report = worker.open_firewall(orders, f"{getpass.getuser()}, without a daemon")
        finally:
            worker.close(orders)
    document = documents.outcome(host, report.before, report.outcome, report.state)
    if as_json:
        print(json.dumps(document))
    else:
        print(f"no daemon is running; {_result(document)}")
    return DONE if isinstance(report.outcome, Done) else FAILED


def _result(document: OutcomeDocument) -> str:
    if document["reason"]:
        return f"fwguardctl could not open the firewall: {document['reason']}"
    return f"fwguardctl opened the firewall. {document['sentence']}"


def _discard(_kind: EventKind, _message: str, /, **_fields: Any) -> None:
    """Events go nowhere: the outcome is printed, and there is no log here."""
