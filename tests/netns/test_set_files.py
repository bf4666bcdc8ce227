"""Set files, on a real daemon and a real kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.kernel.ipset_copies import make_copies_of_sets, read_copies
from fwguardd.kernel.ipset_program import SetsNotLoadedError, destroy_set, restore_sets, save_set
from fwguardd.kernel.set_file_copies import copies_of_files
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.ruleset.set_files import SetFile, kernel_name, read_set_file
from fwguardd.ruleset.set_scripts import (
    LiveSet,
    SetDifference,
    boot_script,
    differences,
    load_script,
    matches,
    read_live,
)
from tests.netns.conftest import output
from tests.netns.test_whole_directory import ctl
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.conftest import Peer

    Saved = Callable[[], dict[str, list[str]]]

pytestmark = pytest.mark.either_backend

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
    for_boot = tmp_path / "state" / "sets" / "scanners.ipset"
    wait_until(for_boot.exists, "the empty set for the boot loader, which would refuse rules that name no set")
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
    daemon.config.write_text(
        daemon.config.read_text().replace("lists: [", "lists: [{name: other, hosts: [x.example]}, ")
    )
    ctl(daemon, "reload")
    assert "list other has not been fetched" in str(daemon.ask("status")["set_problems"])
    daemon.config.write_text(daemon.config.read_text().replace("{name: other, hosts: [x.example]}, ", ""))
    ctl(daemon, "reload")
    assert "list other" not in str(daemon.ask("status")["set_problems"])
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


COMPOUND = {
    "hash:ip,port": "192.0.2.1,tcp:443\n192.0.2.1,udp:53-54\n2001:db8::1,80\n192.0.2.9,sctp:7",
    "hash:net,port": "192.0.2.0/24,tcp:443\n192.0.2.5,sctp:9\n0.0.0.0/0,22\n2001:db8::/32,udp:53\n10.0.0.1-10.0.0.2,80",
    "hash:net,iface": "192.0.2.0/24,eth0\n192.0.2.0/24,eth1\n::/0,wg0\n10.0.0.0/8,physdev:eth0",
    "hash:mac": "02:00:5e:10:00:01\n02:00:5E:10:00:AB",
    "bitmap:port": "22\n8000-8009\n0",
}


@pytest.mark.parametrize("head", ["", " timeout=1h"])
def test_each_type_of_set_is_loaded_as_it_is_written(head: str) -> None:
    """The kernel prints the entries of each type as the file is read, after a boot, a swap, and in a bed; a type that a
    kernel lacks, as some lack hash:mac, is an error that says so."""
    for kind, lines in COMPOUND.items():
        file = read_set_file("/x/a.set", f"# fwguard: set {kind}{head}\n{lines}\n".encode())
        assert isinstance(file, SetFile), file
        assert min(map(len, file.entries.values())) > 0
        if not _kernel_has(kind):
            with pytest.raises(SetsNotLoadedError, match="set type not supported"):
                restore_sets(boot_script(file))
            continue
        restore_sets(boot_script(file))
        _assert_loaded(file)
        restore_sets(load_script(file, _live_sets(file)))
        _assert_loaded(file)
        _assert_copied(file)


def _kernel_has(kind: str) -> bool:
    """Whether it has a type; that of MAC addresses is a module which some kernels are built without."""
    if kind != "hash:mac":
        return True
    created = subprocess.run(["ipset", "create", "probe", kind], capture_output=True, check=False)
    return created.returncode == 0


def _assert_loaded(file: SetFile) -> None:
    live = _live_sets(file)
    assert matches(file, live)
    assert [differences(file, family, live[family]) for family in FAMILIES] == [SetDifference()] * 2


def _assert_copied(file: SetFile) -> None:
    """The copies of a bed have the entries; ipset(8) prints them only with the revision of the type that it knows."""
    names = [kernel_name(file.name, family) for family in FAMILIES]
    copies = copies_of_files([file])
    for name, loaded in read_copies(names).items():
        copies[name]["revision"] = loaded["revision"]
        destroy_set(name)
    assert make_copies_of_sets(copies) == []
    assert [_entries(name) for name in names] == [sorted(file.entries[family]) for family in FAMILIES]
    for name in names:
        destroy_set(name)


def _live_sets(file: SetFile) -> dict[Family, LiveSet]:
    live = {family: read_live(save_set(kernel_name(file.name, family))) for family in FAMILIES}
    return {family: one for family, one in live.items() if one is not None}
