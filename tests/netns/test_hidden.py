"""A table beside ours that holds what iptables cannot show: nft's masquerading in ip nat, as many a router has it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.conftest import output
from tests.netns.test_verbs import FIRST, MORE, OPEN_8080, ROOT, SLOW, ctl
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

pytestmark = pytest.mark.parametrize("backend", ["nft"], indirect=True)

NAT = """table {} nat {{
    set lan {{ type ipv{}_addr; elements = {{ {} }}; }}
    chain POSTROUTING {{ type nat hook postrouting priority 100; oifname "wan0" {} saddr @lan counter masquerade; }}
}}"""
QUICK = "drift_interval: 200ms\n"


def masquerade() -> None:
    """What an administrator has in /etc/nftables.conf, in both families."""
    for family, number, address in (("ip", 4, "192.0.2.1"), ("ip6", 6, "2001:db8::1")):
        subprocess.run(["nft", NAT.format(family, number, address, family)], check=True)
    assert "Table `nat' is incompatible" in output("iptables-nft-save")
    assert "Table `nat' is incompatible" in output("ip6tables-nft-save")


def foreign() -> list[str]:
    """The foreign tables, as nft shows them."""
    return [output(f"nft -a list table {family} nat") for family in ("ip", "ip6")]


def diff(folder: Path) -> tuple[int, str]:
    """The exit code of fwguardctl diff, and all that it says."""
    argv = ["diff", "--json", "--backend", "nft", "--rules-dir", str(folder / "rules")]
    command = [sys.executable, "-m", "fwguardd.ctl.main", *argv]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_hidden_table_of_others_changes_nothing_for_ours(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Start, reload, repair, status, diff, rollback and open go on as if it were not there, and leave it byte for
    byte. That it sees our packets too is reported, once."""
    masquerade()
    theirs = foreign()
    daemon = start_daemon({"10-first.rules": FIRST}, SLOW + QUICK)
    daemon.event("rules.applied")
    first = saved()
    assert all(":INPUT DROP" in lines for lines in first.values())
    shown = daemon.event("rules.elsewhere")["table"]
    assert [table.split(",")[0] for table in shown] == ["table ip nat of iptables-nft", "table ip6 nat of iptables-nft"]
    daemon.drop("20-more.rules", MORE)
    code, said = diff(tmp_path)
    assert code == 0
    changes = [(change["family"], change["table"], change["chain"]) for change in json.loads(said)["changes"]]
    assert changes == [("ipv4", "filter", "INPUT"), ("ipv6", "filter", "INPUT")]
    assert ctl(tmp_path, "reload")["outcome"] == "applied"
    assert OPEN_8080 in saved()["ipv6"]
    second = saved()
    for program in ("iptables-nft", "ip6tables-nft"):
        subprocess.run([program, "-F", "INPUT"], check=True)
        daemon.event("drift.repaired")
        assert saved() == second
    daemon.end_pass()
    status = ctl(tmp_path, "status")
    assert (status["drift"]["unseen"], status["in_force"]["revision"]) == (None, 2)
    assert ctl(tmp_path, "rollback")["outcome"] == "applied"
    assert saved() == first
    assert ctl(tmp_path, "open")["outcome"] == "applied"
    assert ":INPUT ACCEPT" in saved()["ipv4"]
    ctl(tmp_path, "reload")
    assert saved() == second
    assert foreign() == theirs
    daemon.stop()
    names = [event["event"] for event in daemon.all_events()]
    assert names.count("rules.elsewhere") == 1
    assert not {"rules.failed", "drift.hidden", "rules.unseen", "fault"} & set(names)


def test_files_that_name_a_hidden_table_are_not_loaded(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """What nobody can see would be destroyed: the reload fails and says so, diff too, and the guard of what is in force
    goes on. Once the files name the table no more, or it is gone, they are loaded."""
    masquerade()
    theirs = foreign()
    daemon = start_daemon({"10-first.rules": FIRST}, QUICK)
    daemon.event("rules.applied")
    before = saved()
    daemon.drop("20-nat.rules", "*nat\n-A POSTROUTING -o wan1 -j MASQUERADE\n")
    event = daemon.event("rules.failed")
    assert "Table `nat' is incompatible" in event["message"]
    assert "Revision 1 stays in force" in event["message"]
    code, said = diff(tmp_path)
    assert code != 0
    assert "Table `nat' is incompatible" in said
    assert (saved(), foreign()) == (before, theirs)
    for family in ("ip", "ip6"):
        subprocess.run(["nft", "delete", "table", family, "nat"], check=True)
    ctl(tmp_path, "reload")
    assert "-A POSTROUTING -o wan1 -j MASQUERADE" in saved()["ipv6"]


@pytest.mark.parametrize(("family", "program"), [("ip", "iptables"), ("ip6", "ip6tables")])
def test_nothing_is_loaded_over_a_hidden_table_that_is_ours_to_be(
    start_daemon: Start, family: str, program: str
) -> None:
    """A filter table that nft made, found at the start: nothing of either family is written, and that is said with the
    program that cannot show it."""
    table = (
        f"table {family} filter {{ chain INPUT {{ type filter hook input priority 0; quota over 1 mbytes drop; }}; }}"
    )
    subprocess.run(["nft", table], check=True)
    before = output("nft list ruleset")
    daemon = start_daemon({"10-first.rules": FIRST}, QUICK)
    message = daemon.event("rules.failed")["message"]
    assert f"{program}-save cannot show all rules of a table (Table `filter' is incompatible" in message
    assert "Nothing was loaded, and the kernel is as it was" in message
    assert output("nft list ruleset") == before


def test_a_table_that_is_hidden_is_not_let_go(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """A table of ours into which nft puts something cannot be emptied, which the reload that lets it go says. One that
    was let go before is a foreign one, and hides what it likes."""
    nat = "*nat\n-A POSTROUTING -o wan1 -j MASQUERADE\n"
    daemon = start_daemon({"10-first.rules": FIRST, "20-nat.rules": nat}, QUICK)
    daemon.event("rules.applied")
    add = "nft add rule ip nat POSTROUTING ip saddr {192.0.2.1,192.0.2.2} masquerade"
    subprocess.run(add.split(), check=True)
    assert "Table `nat' is incompatible" in daemon.event("drift.hidden")["message"]
    (daemon.rules / "20-nat.rules").unlink()
    assert "Table `nat' is incompatible" in daemon.event("rules.failed")["message"]
    assert "rules.elsewhere" not in {event["event"] for event in daemon.seen}
    subprocess.run(["nft", "flush", "chain", "ip", "nat", "POSTROUTING"], check=True)
    ctl(tmp_path, "reload")
    subprocess.run(add.split(), check=True)
    daemon.event("rules.elsewhere")
    theirs = output("nft list table ip nat")
    before = saved()
    subprocess.run(["iptables-nft", "-F", "INPUT"], check=True)
    wait_until(lambda: saved() == before, "the repair")
    assert output("nft list table ip nat") == theirs
