"""What it takes to prove an invariant for all packets, and to find one that violates it."""

from __future__ import annotations

import contextlib
import random
import resource
import time
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.enforce.invariants import check_invariants
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.packets.keys import Accounts
from fwguardd.packets.policy_results import PolicyOutcome
from fwguardd.packets.tests_file import read_policy_tests
from fwguardd.ruleset.model import Family, RuleFile
from tests.bench.conftest import SIZES
from tests.proofs import HOST, ruleset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fwguardd.packets.bed import Bed
    from fwguardd.packets.host import Host
    from fwguardd.ruleset.model import Ruleset
    from tests.bench.conftest import Recorder

DATABASE: Final = 5432
OUTSIDE: Final = "proto: tcp, not_from: 10.0.0.0/8, family: ipv4"
INVARIANTS: Final = {
    "proved: no database from outside": (f"{{to_port: {DATABASE}, {OUTSIDE}}}", PolicyOutcome.PASSED),
    "violated: nothing from outside": (f"{{{OUTSIDE}}}", PolicyOutcome.FAILED),
}


class NoBeds:
    """Packets are not sent: only the proof is measured."""

    @contextlib.contextmanager
    def prove(self, _rulesets: Mapping[Family, Ruleset], _host: Host) -> Iterator[Bed]:
        """Nothing."""
        raise NamespaceError("no packets in a bench")
        yield


def random_ruleset(count: int) -> Ruleset:
    """Rules about networks, protocols and ports or ranges of them, half of which accept: the port of the database only
    from 10.0.0.0/8."""
    chance = random.Random(7)
    lines = [":INPUT DROP", ":FORWARD DROP", ":OUTPUT ACCEPT", "-A INPUT -i lo -j ACCEPT"]
    lines.append("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
    lines += [_rule(chance) for _ in range(count)]
    return ruleset(*lines)


def _rule(chance: random.Random) -> str:
    first, target = chance.randrange(1, 65000), chance.choice(("ACCEPT", "DROP"))
    last = first + chance.choice((0, chance.randrange(500)))
    start = str(chance.randrange(11, 223))
    if first <= DATABASE <= last:
        start = "10"
    source = f"{start}.{chance.randrange(256)}.{chance.randrange(256)}.0/{chance.choice((16, 24))}"
    protocol = chance.choice(("tcp", "udp"))
    return f"-A INPUT -s {source} -p {protocol} -m {protocol} --dport {first}:{last} -j {target}"


@pytest.mark.parametrize("name", INVARIANTS)
@pytest.mark.parametrize("count", SIZES)
def test_an_invariant(count: int, name: str, record: Recorder, rounds: Callable[[int], int]) -> None:
    """One invariant over rulesets of several sizes, from the rules as text to the result."""
    text, standing = INVARIANTS[name]
    accounts = Accounts(dict[str, int]().get, dict[str, int]().get)
    (invariant,) = read_policy_tests(
        [RuleFile("a.tests.yaml", f"tests: [{{never: {text}}}]".encode())], accounts
    ).invariants
    rules = {Family.IPV4: random_ruleset(count)}
    seconds: list[float] = []
    for _ in range(rounds(5)):
        begun = time.perf_counter()
        checked = check_invariants([invariant], rules, HOST, NoBeds(), undecided_fails=False, seconds=600)
        seconds.append(time.perf_counter() - begun)
        assert [result.standing for result in checked.results] == [standing]
    record(f"{name}, {count:,} rules", "s", seconds)
    record(
        f"memory of z3 so far, {count:,} rules", "MB", [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]
    )
