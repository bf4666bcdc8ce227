"""What a pass costs, as a number of programs run: the same on a busy machine as on a quiet one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.conftest import Programs

    Start = Callable[..., Any]

OURS = {
    "10-filter.rules": "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n",
    "20-nat.rules": "*nat\n-A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 8081\n",
}
RESTORES = 4
"""In one pass: a rehearsal and a load for each of the two families."""

MOST_SAVES = 14
"""In one pass, the drift verb after it, and as many of the looks that follow a load as fall into it on a slow machine:
8 on a fast one."""


def test_a_change_runs_few_programs(start_daemon: Start, programs: Programs) -> None:
    """A dropped file is rehearsed, loaded and verified for both families with this many programs, also where it is the
    tenth change in a row."""
    daemon = start_daemon(OURS, "drift_interval: 1h\n", enter=programs.enter)
    daemon.event("rules.applied")
    daemon.end_pass()
    for number in range(10):
        before = programs.run()
        daemon.drop("95-new.rules", f"-A INPUT -p tcp --dport {20000 + number} -j ACCEPT\n")
        daemon.event("rules.applied", cause="change")
        daemon.end_pass()
        run = programs.run() - before
        counts = {kind: sum(run[name] for name in run if name.endswith(kind)) for kind in ("restore", "save")}
        assert counts["restore"] == RESTORES, run
        assert 0 < counts["save"] <= MOST_SAVES, run


def test_files_that_keep_coming_are_not_waited_for(start_daemon: Start) -> None:
    """A pass begins settle_max after the first notice, though more come all the time."""
    daemon = start_daemon(OURS, "settle: 2s\nsettle_max: 3s\n")
    daemon.event("rules.applied")
    enough = threading.Event()

    def keep_writing() -> None:
        while not enough.wait(0.03):
            (daemon.rules / ".busy").write_text("not yet a rule file\n")
            (daemon.rules / "99-busy.rules").write_text("-A INPUT -p tcp --dport 3000 -j ACCEPT\n")

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        assert daemon.event("rules.applied")["cause"] == "change"
    finally:
        enough.set()
        writer.join()
