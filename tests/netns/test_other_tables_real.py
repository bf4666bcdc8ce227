"""Rules in the other backend and in other tables of nf_tables: reported once, with their effect."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.kernel.iptables import Backend
from fwguardd.kernel.other_tables import legacy_tables, nft_tables, other_tables
from fwguardd.ruleset.model import BUILTIN_CHAINS
from fwguardd.ruleset.other_tables import DROP_IS_FINAL

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = {"nft": "legacy", "legacy": "nft"}
HANDMADE = "table inet mine { chain in { type filter hook input priority 5; policy drop; tcp dport 22 accept; }; }"
OURS = {"10-host.rules": "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"}
QUICK = "drift_interval: 200ms\n"


def run(*argv: str) -> None:
    """Run a program that has to succeed."""
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def reported(daemon: Any) -> list[str]:
    """The messages of its rules.elsewhere events, those of one more whole pass included."""
    daemon.repair()
    return [event["message"] for event in daemon.events_until_its_end("rules.elsewhere")]


def test_a_table_of_somebody_is_reported_once_whenever_it_comes(start_daemon: Callable[..., Any]) -> None:
    """Noticed when it appears, reported with its hook, priority and policy; its next rules are no news, its end is none
    either, and its return is."""
    daemon = start_daemon(OURS, QUICK)
    daemon.event("rules.applied")
    run("nft", HANDMADE)
    event = daemon.event("rules.elsewhere")
    assert event["table"] == ["table inet mine, input (filter, priority 5, policy drop, 1 rule)"]
    assert event["message"].endswith(DROP_IS_FINAL)
    assert event["priority"] == 4
    run("nft", "add rule inet mine in tcp dport 80 accept")
    daemon.repair()
    run("nft", "delete table inet mine")
    # It looks for other tables at the end of a pass, after the events of that pass: a second pass follows such a look.
    daemon.repair()
    daemon.repair()
    run("nft", HANDMADE)
    daemon.event("rules.elsewhere")
    assert len(reported(daemon)) == 2


def test_what_was_there_before_is_reported_at_the_start(start_daemon: Callable[..., Any], backend: str) -> None:
    """Rules in the other backend's tables are reported with the first pass, after what it came to."""
    run(f"ip6tables-{OTHER[backend]}", "-A", "FORWARD", "-j", "DROP")
    daemon = start_daemon(OURS, QUICK)
    message = daemon.event("rules.elsewhere")["message"]
    assert [event["event"] for event in daemon.seen].index("rules.applied") < len(daemon.seen) - 1
    legacy = "table filter of ip6tables-legacy, 1 rule"
    nft = "table ip6 filter of iptables-nft, forward (filter, priority 0, policy accept, 1 rule)"
    assert (legacy if backend == "nft" else nft) in message
    assert len(reported(daemon)) == 1


def test_the_other_backend_is_noticed_when_it_comes_into_use(start_daemon: Callable[..., Any], backend: str) -> None:
    """Legacy iptables sends no notice: the next pass finds its tables."""
    daemon = start_daemon(OURS, QUICK)
    daemon.event("rules.applied")
    run(f"iptables-{OTHER[backend]}", "-P", "FORWARD", "DROP")
    message = daemon.event("rules.elsewhere")["message"]
    assert "policy DROP for FORWARD" in message or "forward (filter, priority 0, policy drop, 0 rules)" in message


def test_tables_that_can_do_nothing_are_not_reported(start_daemon: Callable[..., Any]) -> None:
    """Empty tables of both backends and of nf_tables, one that is switched off, sets, and tables for bridged frames."""
    run("iptables-nft", "-N", "x")
    run("iptables-nft", "-X", "x")
    run("iptables-legacy", "-t", "mangle", "-L")
    run(
        "nft",
        "table inet empty { chain in { type filter hook input priority 0; policy accept; }; set s { type mark; }; }",
    )
    run("nft", "table inet off { flags dormant; chain in { type filter hook input priority 0; policy drop; }; }")
    run("nft", "table bridge b { chain in { type filter hook input priority 0; policy accept; counter; }; }")
    daemon = start_daemon(OURS, QUICK)
    daemon.event("rules.applied")
    assert reported(daemon) == []


def test_a_chain_that_iptables_does_not_show_is_found() -> None:
    """A hand-made base chain in a table that iptables-nft uses too: iptables-save leaves it out."""
    run("nft", "table ip filter { chain input { type filter hook input priority 0; policy drop; }; }")
    run("iptables-nft", "-A", "INPUT", "-j", "ACCEPT")
    assert [str(table) for table in other_tables(Backend.NFT)] == [
        "table ip filter, input (filter, priority 0, policy drop, 0 rules)"
    ]
    run("nft", "flush ruleset")
    run("nft", "table ip6 filter { chain INPUT { type filter hook input priority 9; policy drop; }; }")
    assert [table.place for table in other_tables(Backend.NFT)] == ["ip6 filter"]


def test_tables_of_iptables_are_not_other_tables() -> None:
    """Every chain of every table, with its hook and its priority, in both families."""
    for program in ("iptables-nft", "ip6tables-nft"):
        for name, builtin in BUILTIN_CHAINS.items():
            for chain in builtin:
                run(program, "-t", name, "-A", chain, "-j", "RETURN")
    assert other_tables(Backend.NFT) == ()
    assert sum(len(table.chains) for table in other_tables(Backend.LEGACY)) == 2 * sum(
        map(len, BUILTIN_CHAINS.values())
    )
    assert {table.maker for table in other_tables(Backend.LEGACY)} == {"iptables-nft"}


def test_every_hook_is_found_and_legacy_tables_are_read_completely() -> None:
    """Families, hooks and priorities as nft(8) has them; entries of legacy tables counted, their policies read."""
    chains = {
        "inet": ("prerouting", "input", "forward", "output", "postrouting"),
        "ip6": ("input",),
        "netdev": ("ingress device lo",),
    }
    for family, hooks in chains.items():
        bodies = "".join(
            f"chain c{number} {{ type filter hook {hook} priority {number - 2}; policy accept; counter; }};"
            for number, hook in enumerate(hooks)
        )
        run("nft", f"table {family} t {{ {bodies} }}")
    seen = {
        (table.family, chain.hook, chain.priority, chain.rules)
        for table in nft_tables(of_iptables=False)
        for chain in table.chains
    }
    assert seen == {
        (family, hook.split()[0], number - 2, 1)
        for family, hooks in chains.items()
        for number, hook in enumerate(hooks)
    }
    for program in ("iptables-legacy", "ip6tables-legacy"):
        for name in ("raw", "mangle", "filter", "security"):
            run(program, "-t", name, "-P", "OUTPUT", "DROP")
    assert len(legacy_tables()) == 8
    for legacy in legacy_tables():
        assert [chain.name for chain in legacy.chains if chain.policy == "drop"] == ["OUTPUT"], legacy
        assert sum(chain.rules for chain in legacy.chains) == 0
    run("ip6tables-legacy", "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")
    assert any(str(table) == "table filter of ip6tables-legacy, 1 rule" for table in legacy_tables())


@pytest.mark.parametrize("count", [0, 20])
def test_reading_is_cheap(count: int) -> None:
    """It runs no program and opens at most a dozen files and sockets for any number of tables, so that it can follow
    every pass."""
    for number in range(count):
        run("nft", f"table inet t{number} {{ chain c {{ type filter hook input priority 0; policy drop; }}; }}")
    for program in ("iptables-nft", "iptables-legacy"):
        run(program, "-A", "INPUT", "-j", "ACCEPT")
    assert len(other_tables(Backend.NFT)) == count + 1
    calls: list[str] = []
    sys.addaudithook(lambda event, _: calls.append(event) if watching else None)
    watching = True
    other_tables(Backend.NFT)
    watching = False
    assert not [event for event in calls if event.startswith(("subprocess.", "os.fork", "os.posix_spawn", "os.exec"))]
    assert 0 < sum(event in ("open", "socket.__new__") for event in calls) <= 12
