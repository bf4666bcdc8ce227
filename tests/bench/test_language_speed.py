"""How fast rule files are read, composed and linted, and how much memory that takes, in a fresh process of the system's
Python.

Time is that of the processor. Memory, unlike time, is the same on a busy machine: its bounds are asserted.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.lint import LintContext, lint
from fwguardd.ruleset.model import BOTH
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.preserve import Preserve

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.conftest import Recorder

    Rounds = Callable[[int], int]

ROOT = Path(__file__).resolve().parents[2]
MEASURE = r"""
import json, re, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path

from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.families import families_of_name
from fwguardd.ruleset.parser import read_rules

def once():
    started = time.process_time()
    snapshot = take_snapshot(Path(sys.argv[2]))
    composition = compose(
        read_rules(file.path, file.data, families_of_name(file.path)) for file in snapshot.files
    )
    return time.process_time() - started, snapshot, composition

rounds = int(sys.argv[3])
seconds, snapshot, composition = once()
peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps({
    "seconds": [seconds, *(once()[0] for _ in range(rounds - 1))],
    "mebibytes": peak / 1024,
    "errors": len(snapshot.findings.errors) + len(composition.findings.errors),
    "rules": max((ruleset.rule_count for ruleset in composition.candidate.rulesets.values()), default=0),
}))
"""


class Figures(NamedTuple):
    """What one process measured."""

    milliseconds: list[float]
    mebibytes: float
    errors: int
    rules: int


def measured(directory: Path, rounds: int) -> Figures:
    """The times of so many rounds, and the peak of memory after the first of them, in a process of its own."""
    directory.chmod(0o755)
    argv = ["/usr/bin/python3", "-I", "-c", MEASURE, str(ROOT), str(directory), str(rounds)]
    answer = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    milliseconds = [1000 * seconds for seconds in answer["seconds"]]
    return Figures(milliseconds, answer["mebibytes"], answer["errors"], answer["rules"])


def rule(number: int) -> str:
    """One of several kinds of rules that people write."""
    kinds: tuple[Callable[[], str], ...] = (
        lambda: f"-A INPUT -p tcp --dport {number % 65535 + 1} -m conntrack --ctstate NEW -j ACCEPT",
        lambda: f"-A INPUT -s 10.{number >> 8 & 255}.{number & 255}.0/24 -p tcp -m multiport --dports 80,443 -j ACCEPT",
        lambda: f"-A FORWARD -i eth{number % 9} -p udp --dport {number % 60000 + 1} -j DROP",
        lambda: f'-A INPUT -p tcp --dport {number % 60000 + 1} -m comment --comment "service {number}" -j ACCEPT',
    )
    return kinds[number % len(kinds)]()


def test_ten_thousand_rules_in_five_hundred_files(tmp_path: Path, record: Recorder, rounds: Rounds) -> None:
    """From the directory to two composed rulesets, in at most 60 MB."""
    for file in range(500):
        rules = "".join(f"{rule(file * 20 + number)}\n" for number in range(20))
        (tmp_path / f"{file:03d}.rules").write_text(f"# service {file}\n{rules}", encoding="utf-8")
    figures = measured(tmp_path, rounds(15))
    record("10,000 rules in 500 files", "ms", figures.milliseconds)
    record("10,000 rules in 500 files", "MiB", [figures.mebibytes])
    assert (figures.errors, figures.rules) == (0, 10_000)
    assert figures.mebibytes <= 60


def mixed_rules() -> str:
    """20,000 rules of several kinds in closed chains."""
    rules = "".join(f"{rule(number)}\n" for number in range(20_000))
    return f"-P INPUT DROP\n-P FORWARD DROP\n{rules}"


def rules_against_each_other() -> str:
    """20,000 rules of which each has to be compared with those of another target before it."""
    rules: list[str] = []
    for number in range(10_000):
        networks = (f"{first}.{number >> 8 & 255}.{number & 255}.0/24" for first in (10, 11))
        for network, target in zip(networks, ("DROP", "ACCEPT"), strict=True):
            rules.append(f"-A INPUT -s {network} -p tcp -m multiport --dports 80,443 -j {target}\n")
    return "".join(rules)


def single_addresses() -> str:
    """50,000 addresses to drop."""
    addresses = (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(50_000))
    return "".join(f"-A INPUT -s {address} -j DROP\n" for address in addresses)


LINTED: dict[str, Callable[[], str]] = {
    "lint 20,000 mixed rules": mixed_rules,
    "lint 20,000 rules against each other": rules_against_each_other,
    "lint 50,000 single addresses": single_addresses,
}


EXPECTED = {"no-established", "no-loopback", "no-neighbour-discovery", "ftp-without-helper"}


@pytest.mark.parametrize("name", LINTED)
def test_lints_of_large_files(name: str, record: Recorder, rounds: Rounds) -> None:
    """The warnings about many rules; none of them is about the value of a rule."""
    reading = read_rules("large.rules", LINTED[name]().encode(), BOTH)
    candidate = compose([reading]).candidate
    context = LintContext(("fwguard: ",), Preserve.from_patterns(("docker", "fail2ban")))
    milliseconds: list[float] = []
    for _ in range(rounds(9)):
        started = time.process_time()
        findings = lint(candidate, [reading], context)
        milliseconds.append(1000 * (time.process_time() - started))
        assert {finding.code for finding in findings} <= EXPECTED
    record(name, "ms", milliseconds)


HOSTILE: dict[str, tuple[Callable[[], bytes], int]] = {
    "one line of 10 MB": (lambda: b"-A INPUT " + b"x" * (10 << 20), 1),
    "one line of 10 MB of quotes": (lambda: b'-A INPUT --comment "' + b'\\"' * (5 << 20), 1),
    "one line of 10 MB of options": (lambda: b"-A INPUT" + b" -p tcp" * 1_500_000, 1),
    "one comment of 10 MB": (lambda: b"#" + b" fwguard: allow x" * 600_000, 1),
    "10 MB of empty lines": (lambda: b"\n" * (10 << 20), 1),
    "100,000 lines of garbage": (lambda: b'\xc3\xa9 garbage " line\n' * 100_000, 21),
    "100,000 rules for chains of their own": (
        lambda: b"".join(b"-A chain%d -j ACCEPT\n" % number for number in range(100_000)),
        1,
    ),
    "100,000 inserted rules": (lambda: b"-I INPUT -p tcp -j ACCEPT\n" * 100_000, 0),
    "100,000 valid rules": (lambda: "".join(f"{rule(number)}\n" for number in range(100_000)).encode(), 0),
    "10 MB of noise": (lambda: bytes(range(256)) * (40 << 10), 1),
    "100,000 control characters in a line": (lambda: b"-A INPUT " + b'"\x1b" ' * 2_400, 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_read_or_refused(name: str, tmp_path: Path, record: Recorder, rounds: Rounds) -> None:
    """At most 100 MB to refuse a file, whatever it holds."""
    make, errors = HOSTILE[name]
    (tmp_path / "hostile.rules").write_bytes(make())
    figures = measured(tmp_path, rounds(5))
    record(name, "ms", figures.milliseconds)
    assert figures.errors == errors
    assert figures.mebibytes <= 100
