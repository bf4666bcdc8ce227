"""The end of an entry while the rule files wait, and across a reboot, on a real daemon and a real kernel."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce.context import boottime
from fwguardd.enforce.ends import ENDED
from fwguardd.kernel.privilege import boot_id
from fwguardd.ruleset.expiry import written_until
from fwguardd.ruleset.model import RuleFile
from fwguardd.store.model import Kept, PendingConfirmation
from fwguardd.store.revisions import RevisionStore
from tests.netns.test_boot_loader import LOADER
from tests.netns.test_whole_directory import ctl
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

RULES = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"
SETTINGS = "drift_interval: 1h\napply: manual\nconfirm_changes: 60s\n"


@pytest.mark.parametrize("backend", ["nft"])
@pytest.mark.parametrize("files", ["held", "refused"])
def test_an_entry_ends_while_the_files_wait(start_daemon: Start, saved: Saved, files: str) -> None:
    """What was allowed for a time ends by itself, also while the rule files are held or refused, and while the revision
    waits to be confirmed: in a revision that lacks only that. The files stay held or refused, the rest of the ruleset
    stays in force, and neither a rollback nor the end of the time for a confirmation brings back what has ended."""
    entry = f"{written_until(time.time() + 3600)}\n-A INPUT -p tcp --dport 8081 -j ACCEPT\n"
    daemon = start_daemon({"a.rules": RULES, "b.rules": entry})
    assert daemon.event("rules.applied")["revision"] == 1
    daemon.close()
    _let_it_have_ended(daemon.config.parent / "state", held=files == "held")
    port = {"held": "443", "refused": "44333333"}[files]
    daemon.drop("b.rules", f"-A INPUT -p tcp --dport {port} -j ACCEPT\n")
    again = start_daemon(None)
    assert again.event("rules.applied")["cause"] == ENDED
    again.end_pass()
    left = saved()
    assert [line for lines in left.values() for line in lines if "8081" in line or port in line] == []
    status = again.ask("status")
    assert (status["state"], status["files"], status["pending"]["revision"]) == ("in-force", files, 3)
    ctl(again, "confirm")
    ctl(again, "rollback", "2")
    assert saved() == left


def _let_it_have_ended(state: Path, *, held: bool) -> None:
    """Record the newest revision once more, as if its entry had ended, and let it wait to be confirmed."""
    store = RevisionStore(state)
    newest = store.newest()
    assert isinstance(newest, Kept)
    past = written_until(time.time() - 10).encode()
    files = [RuleFile(file.path, file.data) for file in newest.revision.files]
    for number, file in enumerate(files):
        if b"until" in file.data:
            files[number] = RuleFile(file.path, past + file.data[len(past) :])
    store.record(replace(newest.revision, number=2, files=tuple(files)))
    deadline = boottime() + 3600
    store.set_pending(PendingConfirmation(2, 1, deadline, boot_id(), time.time() + 3600, newest.revision.digest))
    if held:
        store.hold("of other files", "a test holds them")


@pytest.mark.parametrize("backend", ["nft"])
def test_an_entry_ends_while_the_host_is_off(start_daemon: Start, saved: Saved, backend: str) -> None:
    """An entry whose end comes before the next boot is out after the start of the daemon, also with apply: manual, and
    one that has not ended is in force. The boot loader has left it out already, which is no drift. That is neither held
    nor to be confirmed."""
    daemon = start_daemon({"a.rules": RULES}, SETTINGS)
    daemon.event("rules.held")
    ctl(daemon, "reload")
    ctl(daemon, "allow", "8080/tcp", "--for", "1h")
    left = saved()
    until = json.loads(ctl(daemon, "allow", "8081/tcp", "--for", "3s", "--json"))["until"]
    daemon.close()
    wait_until(lambda: time.time() > until, "the end of an entry")
    for family in ("iptables", "ip6tables"):
        subprocess.run([f"{family}-{backend}-restore"], input="*filter\nCOMMIT\n", text=True, check=True)
    folder = daemon.config.parent
    subprocess.run([LOADER, "--state-dir", folder / "state", "--runtime-dir", folder / "run"], check=True)
    assert saved() == left
    again = start_daemon(None, SETTINGS)
    wait_until(lambda: saved() == left, "the rules without the entry")
    again.end_pass()
    status = again.ask("status")
    assert (status["state"], status["files"], status["pending"]) == ("in-force", "applied", None)
    again.stop()
    assert not [event for event in again.all_events() if event["event"].startswith("drift")]
