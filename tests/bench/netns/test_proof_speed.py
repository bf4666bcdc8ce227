"""What policy tests and the lockout guard add to a pass."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from fwguardd.enforce.context import Done, RecordedHost
from fwguardd.enforce.reconcile import PassRequest
from fwguardd.enforce.record import Cause
from fwguardd.kernel.iptables import Backend, find_tool
from fwguardd.progress import Progress
from fwguardd.settings import Settings
from fwguardd.worker import Worker
from fwguardd.worker_report import Orders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.conftest import Recorder

    Rounds = Callable[[int], int]

TESTS = "tests:\n" + "".join(
    f"- {{expect: accept, in: guard0, proto: tcp, dport: {port}, family: 4}}\n" for port in range(1001, 1021)
)
NETWORK = (
    "ip link add guard0 type veth peer name peer0",
    "ip link set guard0 up",
    "ip address add 198.51.100.1/24 dev guard0",
)


class Passes:
    """Passes of a worker over a directory with a thousand rules, each after a change."""

    def __init__(self, folder: Path, backend: str) -> None:
        self._rules = folder / "rules"
        self._rules.mkdir()
        lines = "".join(f"-A INPUT -p tcp --dport {port} -j ACCEPT\n" for port in range(1000, 2000))
        (self._rules / "a.rules").write_text(f"-P INPUT DROP\n-A INPUT -p tcp --dport 22 -j ACCEPT\n{lines}")
        peers = (ip_address("198.51.100.2"),)
        self._settings = Settings(self._rules, folder / "state", folder / "run", lockout_peers=peers)
        host = RecordedHost(find_tool(Backend(backend)), "test", "test")
        self._worker = Worker(self._settings, host, lambda *_args, **_fields: None, Progress())
        self._number = 0

    def seconds(self, *, proved: bool) -> float:
        """What one more pass takes, with the tests and the guard or without."""
        self._number += 1
        (self._rules / "b.rules").write_text(f"-A INPUT -p tcp --dport {3000 + self._number} -j ACCEPT\n")
        (self._rules / "a.tests.yaml").write_text(TESTS * proved)
        orders = Orders(replace(self._settings, lockout_guard=proved))
        begun = time.perf_counter()
        report = self._worker.run_pass(orders, PassRequest(Cause("change")))
        took = time.perf_counter() - begun
        assert isinstance(report.outcome, Done), report.outcome
        return took

    def close(self) -> None:
        """End the worker."""
        self._worker.close(Orders(self._settings))


def test_a_pass_with_tests_and_a_guard(tmp_path: Path, backend: str, record: Recorder, rounds: Rounds) -> None:
    """Twenty tests and a guard add little to a pass over 1,000 rules for each family."""
    for command in NETWORK:
        subprocess.run(command.split(), check=True)
    passes = Passes(tmp_path, backend)
    passes.seconds(proved=True)
    pairs = [(passes.seconds(proved=True), passes.seconds(proved=False)) for _ in range(rounds(10))]
    passes.close()
    record(f"a pass over 1,000 rules ({backend})", "ms", (1000 * plain for _, plain in pairs))
    record(f"the same with 20 tests and a guard ({backend})", "ms", (1000 * proved for proved, _ in pairs))
    record(f"the one in terms of the other ({backend})", "times", (proved / plain for proved, plain in pairs))
