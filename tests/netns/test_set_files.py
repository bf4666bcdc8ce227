"""Set files, on a real daemon and a real kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.conftest import output
from tests.netns.test_whole_directory import ctl
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.conftest import Peer

    Saved = Callable[[], dict[str, list[str]]]

LOADER = Path(__file__).resolve().parents[2] / "packaging" / "fwguardd-boot"
RULES = "-A INPUT -m set --match-set scanners src -j DROP\n-A OUTPUT -j SET --add-set seen dst --exist\n"
SCANNERS = "# both families\n192.0.2.0/25\n192.0.2.128-192.0.2.255\n2001:db8::2\n"
SEEN = "# fwguard: set hash:ip timeout=1h\n"


def _entries(name: str) -> list[str]:
    return sorted(line.split()[2] for line in output(f"ipset save {name}").splitlines() if line.startswith("add"))


def _metric(daemon: Any, name: str) -> list[float]:
    """The values of a metric."""
    families = daemon.ask("metrics")["families"]
    return [sample["value"] for family in families if family["name"] == name for sample in family["samples"]]


def test_set_files(
    start_daemon: Callable[..., Any], saved: Saved, peer: Peer, listen: Callable[[int], None], tmp_path: Path
) -> None:
    """Sets are loaded before the rules, each family's half by one name. A changed file is swapped in without a pass,
    what others change is repaired, what a rule adds stays, an error leaves the set as it was. A boot loads them."""
    daemon = start_daemon({"a.rules": RULES, "scanners.set": SCANNERS, "seen.set": SEEN}, "drift_interval: 300ms\n")
    revision = daemon.event("rules.applied")["revision"]
    assert (_entries("scanners"), _entries("scanners-v6")) == (["192.0.2.0/24"], ["2001:db8::2"])
    before = saved()
    assert "-A INPUT -m set --match-set scanners-v6 src -j DROP" in before["ipv6"]
    listen(80)
    assert not peer.connects("2001:db8::1", 80, seconds=0.2)
    assert peer.connects("198.51.100.1", 80)
    assert "198.51.100.2" in _entries("seen")
    daemon.drop("scanners.set", SCANNERS + "198.51.100.2 # the peer\n")
    assert daemon.event("set.loaded")["entries"] == 3
    assert not peer.connects("198.51.100.1", 80, seconds=0.2)
    output("ipset del scanners 198.51.100.2")
    output("ipset add scanners-v6 2001:db8::9")
    assert daemon.event("drift.detected")["changes"] == 2
    daemon.event("drift.repaired")
    assert (_entries("scanners"), _entries("scanners-v6")) == (["192.0.2.0/24", "198.51.100.2"], ["2001:db8::2"])
    daemon.drop("seen.set", SEEN + "192.0.2.9\n")
    daemon.event("set.loaded", set="seen")
    assert {"192.0.2.9", "198.51.100.2"} <= set(_entries("seen"))
    daemon.drop("scanners.set", SCANNERS + "\nexample.org\n")
    refused = daemon.event("set.refused")
    assert (refused["file"], refused["code"]) == (f"{daemon.rules}/scanners.set:6", "bad-set")
    wait_until(lambda: "scanners.set:6" in str(daemon.ask("status")["set_problems"]), "the refused file in status")
    assert "scanners.set:6: error" in ctl(daemon, "diff", "--rules-dir", str(daemon.rules), code=1)
    assert _entries("scanners") == ["192.0.2.0/24", "198.51.100.2"]
    assert saved() == before
    assert [event for event in daemon.events_until_its_end("rules.applied") if event["revision"] != revision] == []
    for program in ("iptables", "ip6tables"):
        subprocess.run([f"{program}-{daemon.backend}", "-F"], check=True)
    output("ipset destroy")
    state, runtime = daemon.config.parent / "state", tmp_path / "boot-run"
    subprocess.run(["sh", LOADER, "--state-dir", state, "--runtime-dir", runtime], check=True)
    assert _entries("scanners") == ["192.0.2.0/24", "198.51.100.2"]
    assert saved() == before


@pytest.mark.parametrize("backend", ["nft"])
def test_a_set_with_its_file(start_daemon: Callable[..., Any], saved: Saved, tmp_path: Path) -> None:
    """The set of a list is empty until it is fetched, and reported when it is stale. A set file and a rule that names
    it come together, and go together; a rule in force has its place in the files; a rule with too few directions is
    found."""
    lists = f"lists_dir: {tmp_path}/lists\nlists: [{{name: scanners, url: 'https://lists.example/x'}}]\n"
    rules = "-A INPUT -i lo -j ACCEPT\n-A INPUT -m set --match-set scanners src -j DROP\n"
    daemon = start_daemon({"a.rules": rules}, f"drift_interval: 300ms\n{lists}")
    assert "has not been fetched yet, and its set is empty" in daemon.event("set.refused")["message"]
    daemon.event("rules.applied")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "scanners.set").write_text("192.0.2.0/24\n2001:db8::/32\n")
    daemon.event("set.loaded", set="scanners")
    assert (_entries("scanners"), _entries("scanners-v6")) == (["192.0.2.0/24"], ["2001:db8::/32"])
    os.utime(tmp_path / "lists" / "scanners.set", (0, 0))
    assert "list scanners is stale" in daemon.event("set.refused")["message"]
    wait_until(lambda: _metric(daemon, "fwguard_set_written_timestamp_seconds") == [0.0], "the age in the metrics")
    assert _metric(daemon, "fwguard_list_interval_seconds") == [86400.0]
    daemon.drop("office.set", "192.0.2.0/24\n")
    daemon.event("set.loaded")
    assert "+ -A INPUT -p tcp -m set --match-set office-v6 src" in ctl(daemon, "allow", "ssh", "--from", "office")
    assert "-A INPUT -p tcp -m set --match-set office src -m tcp --dport 22 -j ACCEPT" in saved()["ipv4"]
    packet = ("in", "lo", "tcp", "127.0.0.1", "127.0.0.1:22")
    assert "a.rules:1" in ctl(daemon, "explain", "--config", str(daemon.config), "--live", *packet)
    ctl(daemon, "remove", "ssh", "--from", "office")
    (daemon.rules / "office.set").unlink()
    daemon.repair()
    daemon.end_pass()
    assert output("ipset list -n").split() == ["scanners", "scanners-v6"]
    draft = tmp_path / "draft"
    shutil.copytree(daemon.rules, draft)
    assert "unchanged" in ctl(daemon, "deploy", str(draft))
    (draft / "later.set").write_text("192.0.2.0/24\n")
    ctl(daemon, "deploy", str(draft))
    assert _entries("later") == ["192.0.2.0/24"]
    output("ipset create pairs hash:ip,port")
    daemon.drop("b.rules", "-4 -A INPUT -m set --match-set pairs src -j DROP\n")
    assert daemon.event("rules.finding", code="set-directions")["file"] == f"{daemon.rules}/b.rules:1"


def test_policy_tests_of_a_draft_know_its_sets(tmp_path: Path) -> None:
    """The sets of a draft are not on this host: packets are compared with the entries of its files."""
    (tmp_path / "a.rules").write_text("-P INPUT DROP\n-A INPUT -p tcp -m set --match-set office src -j ACCEPT\n")
    (tmp_path / "office.set").write_text("192.0.2.0/25\n192.0.2.200\n2001:db8::/32\n")
    accepted = ("192.0.2.7", "192.0.2.200", "2001:db8::5")
    tests = [f"- {{expect: accept, proto: tcp, from: '{source}', dport: 22}}" for source in accepted]
    tests += [f"- {{expect: drop, proto: tcp, from: '{source}', dport: 22}}" for source in ("192.0.2.201", "fd00::1")]
    (tmp_path / "x.tests.yaml").write_text("defaults: {in: lo}\ntests:\n" + "\n".join(tests) + "\n")
    command = [sys.executable, "-m", "fwguardd.ctl.main", "test", str(tmp_path)]
    done = subprocess.run(command, cwd=LOADER.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 " in done.stdout
