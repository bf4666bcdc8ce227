"""A bed that is kept from one proof to the next: its answers are those of a new one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from dataclasses import dataclass, field, replace
from itertools import starmap
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.kernel.bed import Beds
from fwguardd.kernel.kept_bed import KeptBed
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool, ScratchNamespace
from fwguardd.kernel.rehearsed_rules import RehearsedRules
from fwguardd.kernel.rule_bytes import RuleBytes
from fwguardd.packets.model import Direction
from fwguardd.ruleset.model import FAMILIES, Family, Ruleset
from tests.netns.random_rules import random_packets, random_rules
from tests.netns.test_bed import ROUTER, packet, rules
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.kernel.bed import LoadedBed
    from fwguardd.packets.host import Host

CHANGES = scaled(8, 200)
SSH = packet("198.51.100.7", "192.0.2.1", 22)


@dataclass
class Counted:
    """A kept bed, and how many namespaces were made for it."""

    backend: str
    made: int = 0
    rehearsed: RehearsedRules = field(default_factory=RehearsedRules)
    pool: NamespacePool = field(init=False)
    kept: KeptBed = field(init=False)

    def __post_init__(self) -> None:
        self.pool = NamespacePool(self._method, spares=0)
        self.kept = KeptBed(Beds(self.backend, self.pool, rehearsed=self.rehearsed))

    def _method(self) -> NamespaceMethod:
        self.made += 1
        return NamespaceMethod.PRIVILEGED

    def verdict(self, text: str, host: Host = ROUTER) -> str:
        """What becomes of a connection to port 22 under these rules for IPv4."""
        with self.kept.prove({Family.IPV4: rules(Family.IPV4, f"*filter\n{text}COMMIT\n")}, host) as bed:
            (journey,) = bed.send([SSH])
        return str(getattr(journey, "verdict", journey))

    def close(self) -> None:
        """End the namespaces."""
        self.kept.close()
        self.pool.close()


@pytest.fixture
def counted(backend: str) -> Iterator[Counted]:
    """A kept bed."""
    made = Counted(backend)
    yield made
    made.close()


def saved(bed: LoadedBed, backend: str, family: Family) -> list[str]:
    """What iptables-save prints in a bed, without counters."""
    bed._scratch.send(backend, family.number, [{"save": True}])
    (result,) = bed._scratch.receive()
    return [line for line in _without_counters(result["stdout"]).splitlines() if "#" not in line]


def edited(chance: random.Random, text: str) -> str:
    """A ruleset with some rules removed, some written twice, and some in another place."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("-A") or chance.random() < 0.8:
            lines.append(line)
        if line.startswith("-A") and chance.random() < 0.2:
            lines.append(line)
    return "\n".join(lines) + "\n"


def test_a_kept_bed_answers_as_a_new_one(counted: Counted, backend: str) -> None:
    """After each of many changes it holds the same rules, and each packet meets the same ones."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    texts: dict[Family, str] = {}
    with contextlib.closing(NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=0)) as pool:
        for number in range(CHANGES):
            direction = list(Direction)[number // 4 % 3]
            if number % 4 == 0:
                texts = {family: random_rules(chance, family, direction) for family in FAMILIES}
            written = {family: edited(chance, text) for family, text in texts.items()}
            rulesets = _canonical(backend, pool, written, counted.rehearsed)
            packets = [one for family in FAMILIES for one in random_packets(chance, family, direction, 20)]
            with counted.kept.prove(rulesets, ROUTER) as bed, Beds(backend, pool).prove(rulesets, ROUTER) as fresh:
                for family in FAMILIES:
                    assert saved(bed, backend, family) == saved(fresh, backend, family), (seed, number)
                assert bed.send(packets) == fresh.send(packets), (seed, number)
            pool.refill()
    assert counted.made < CHANGES


def _canonical(
    backend: str, pool: NamespacePool, texts: dict[Family, str], rehearsed: RehearsedRules
) -> dict[Family, Ruleset]:
    """Rulesets as iptables-save prints them after they were loaded; what their rules are made of is kept."""
    found: dict[Family, Ruleset] = {}
    rehearsed.forget()
    with pool.acquire() as scratch:
        for family, text in texts.items():
            save = {"save": True, "rules": backend == "nft"}
            scratch.send(backend, family.number, [{"restore": text, "noflush": False}, save])
            result = scratch.receive()[-1]
            found[family] = rules(family, _without_counters(result["stdout"]))
            rehearsed.keep(found[family], list(starmap(RuleBytes.of_hex, result.get("rules", ()))))
    return found


def _without_counters(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("["):
            lines.append(line.partition("] ")[2])
        else:
            lines.append(line.partition(" [")[0])
    return "\n".join(lines)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The results of all programs of iptables that the workers in beds run."""
    found: list[Any] = []
    real = ScratchNamespace.answer

    def answer(scratch: ScratchNamespace) -> dict[str, Any]:
        document = real(scratch)
        found.extend(document.get("results", ()))
        return document

    monkeypatch.setattr(ScratchNamespace, "answer", answer)
    return found


OPEN = "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"
OTHERS = "".join(f"-A INPUT -s 203.0.113.{number}/32 -j DROP\n" for number in range(9))


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_new_rules_come_into_a_bed_without_iptables(counted: Counted, results: list[Any]) -> None:
    """Rules that a rehearsal has shown are put into the kept bed as they were there, in their place, and packets meet
    them; without a change no program runs either."""
    assert counted.verdict(f":INPUT DROP\n{OTHERS}") == "drop"
    with contextlib.closing(NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=0)) as pool:
        _canonical("nft", pool, {Family.IPV4: f"*filter\n{OPEN}{OTHERS}COMMIT\n"}, counted.rehearsed)
    before = len(results)
    assert counted.verdict(f":INPUT DROP\n{OTHERS}{OPEN}") == "accept"
    assert counted.verdict(f":INPUT DROP\n{OTHERS}{OPEN}") == "accept"
    assert counted.verdict(f":INPUT DROP\n{OPEN}{OTHERS}") == "accept"
    assert counted.verdict(f":INPUT DROP\n{OTHERS}") == "drop"
    assert (len(results), counted.made) == (before, 1)
    assert counted.verdict(f":INPUT DROP\n-A INPUT -p tcp -j ACCEPT\n{OTHERS}") == "accept"
    assert (len(results), counted.made) == (before + 1, 1)


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_a_bed_that_is_otherwise_than_known_does_not_decide(counted: Counted) -> None:
    """Where anything has been committed in a bed that it does not know of, the next change makes a new one."""
    assert counted.verdict(f":INPUT DROP\n{OPEN}{OTHERS}") == "accept"
    kept = counted.kept._kept
    assert kept is not None
    kept._scratch.send("nft", 4, [{"restore": "*filter\n-I INPUT -j DROP\nCOMMIT\n", "noflush": True}])
    assert kept._scratch.receive()[0]["code"] == 0
    assert counted.verdict(f":INPUT DROP\n{OPEN}") == "accept"
    assert counted.made == 2


def test_a_bed_is_kept_while_host_and_sets_are_the_same(counted: Counted) -> None:
    """An edit needs no new namespace. Another host, other entries of a set, and rules with which packets change sets
    do, and so does a chain that a fresh bed would not have."""
    assert counted.verdict(":INPUT DROP\n") == "drop"
    assert counted.verdict(":INPUT DROP\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n") == "accept"
    assert counted.verdict(":INPUT DROP\n:web -\n-A INPUT -j web\n-A web -p tcp -j REJECT\n") == "reject"
    assert counted.verdict(":INPUT ACCEPT\n") == "accept"
    assert counted.made == 1
    assert counted.verdict(":INPUT DROP\n", replace(ROUTER, routes=ROUTER.routes[:-1])) == "drop"
    assert counted.made == 2
    assert counted.verdict(":FORWARD DROP\n") == "accept"
    assert counted.made == 3


def test_a_set_is_looked_at_before_each_proof(counted: Counted) -> None:
    """A bed whose sets have other entries than the host's by now is not used again."""
    text = ":INPUT DROP\n-A INPUT -m set --match-set office src -j ACCEPT\n"
    subprocess.run(["ipset", "create", "office", "hash:ip"], check=True)
    assert counted.verdict(text) == "drop"
    assert counted.verdict(f"{text}-A INPUT -p udp -j ACCEPT\n") == "drop"
    assert counted.made == 1
    subprocess.run(["ipset", "add", "office", "198.51.100.7"], check=True)
    assert counted.verdict(text) == "accept"
    assert counted.made == 2
    subprocess.run(["ipset", "create", "seen", "hash:ip"], check=True)
    for _ in range(2):
        assert counted.verdict(f"{text}-A INPUT -j SET --add-set seen src\n") == "accept"
    assert counted.made == 4


def test_a_bed_whose_process_has_ended_is_replaced(counted: Counted) -> None:
    """The next proof makes a new one, and a proof that fails leaves none behind."""
    assert counted.verdict(":INPUT DROP\n") == "drop"
    kept = counted.kept._kept
    assert kept is not None
    assert kept._scratch._pid is not None
    os.kill(kept._scratch._pid, signal.SIGKILL)
    assert counted.verdict(":INPUT ACCEPT\n") == "accept"
    assert counted.made == 2
    with pytest.raises(ZeroDivisionError), counted.kept.prove({}, ROUTER):
        raise ZeroDivisionError
    assert counted.verdict(":INPUT ACCEPT\n") == "accept"
    assert counted.made == 3
