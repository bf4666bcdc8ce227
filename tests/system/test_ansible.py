"""The Ansible role on booted machines: three hosts with sshd, and a controller with Debian's ansible-core.

The tests are one story, and run in the order in which they stand here. They take minutes, so they run with
packaging/test --long only.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.system.fleet import PROJECT, Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.long

NAMES = ("web1", "web2", "web3")
RECAP = re.compile(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=(\d+) ", re.MULTILINE)
APP = "-A INPUT -p tcp --dport 8080 -m conntrack --ctstate NEW -j ACCEPT\n"
CUT = "-I INPUT -p tcp --syn -m tcpmss --mss 500:1500 -j DROP\n"
"""Meant against connections with a tiny segment size, and written with that of all others. The packets of tests and of
the lockout guard have no such option, so only a new connection shows it."""

VARIABLES = """
    ansible_user: root
    fwguardd_deb: "{{ playbook_dir }}/fwguardd.deb"
    fwguardd_apt_cache_valid_time: 315360000
    fwguardd_confirm_seconds: 300
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Hosts without fwguardd, and a project with the shipped rules. web3 has rules of its own, and a shorter time."""
    with Fleet(NAMES, tmp_path_factory.mktemp("fleet")) as fleet:
        lines = [f"    web{number}: {{ansible_host: 192.0.2.1{number}}}" for number in (1, 2)]
        lines.append("    web3: {ansible_host: 192.0.2.13, fwguardd_rules: [rules, own], fwguardd_confirm_seconds: 30}")
        _project(fleet, "inventory.yml", "\n".join(["firewalls:", "  hosts:", *lines, f"  vars:{VARIABLES}"]))
        fleet.controller.run(f"cp -r /etc/fwguard.d {PROJECT}/rules")
        fleet.controller.run(f"mkdir {PROJECT}/own")
        yield fleet


def _project(fleet: Fleet, name: str, text: str) -> None:
    """Write a file of the project."""
    fleet.controller.file(f"{PROJECT}/{name}").write_text(text, encoding="utf-8")


def _played(fleet: Fleet, arguments: str = "") -> tuple[dict[str, tuple[int, int]], str]:
    """Run the playbook: the numbers of changed and failed tasks of each host, and all that it printed."""
    done = fleet.play(arguments)
    shown = done.stdout + done.stderr
    return {name: (int(changed), int(failed)) for name, changed, failed in RECAP.findall(shown)}, shown


def _status(fleet: Fleet, name: str) -> tuple[str, str, object]:
    """State, files and what waits to be confirmed."""
    status = json.loads(fleet.hosts[name].run("fwguardctl status --json").stdout)
    return status["state"], status["files"], status["pending"]


def test_check_mode_before_the_first_run_changes_nothing(fleet: Fleet) -> None:
    """It says that the package would be installed, and installs nothing."""
    recap, shown = _played(fleet, "--check")
    assert recap == dict.fromkeys(NAMES, (1, 0)), shown
    assert not fleet.hosts["web1"].file("/usr/bin/fwguardctl").exists()


def test_the_first_run_puts_the_rules_in_force_on_all_hosts(fleet: Fleet) -> None:
    """The package is installed, the rules are loaded and confirmed over a new connection, and the next boot has
    them."""
    recap, shown = _played(fleet)
    assert {name: failed for name, (_, failed) in recap.items()} == dict.fromkeys(NAMES, 0), shown
    for name, bed in fleet.hosts.items():
        assert _status(fleet, name) == ("in-force", "applied", None)
        assert bed.output("systemctl is-enabled fwguardd") == "enabled\n"


def test_the_second_run_changes_nothing(fleet: Fleet) -> None:
    """No task of it is a change."""
    recap, shown = _played(fleet)
    assert recap == dict.fromkeys(NAMES, (0, 0)), shown


def test_check_mode_shows_the_difference(fleet: Fleet) -> None:
    """With --check --diff each host is one change, with the rule that would be added, and stays as it is."""
    _project(fleet, "rules/60-app.rules", APP)
    recap, shown = _played(fleet, "--check --diff")
    assert recap == dict.fromkeys(NAMES, (1, 0)), shown
    assert shown.count("--dport 8080") == 2 * len(NAMES), shown  # For IPv4 and IPv6.
    assert "8080" not in fleet.hosts["web1"].output("iptables-save")


def test_a_host_that_would_be_cut_off_comes_back_by_itself(fleet: Fleet) -> None:
    """The change is in force on the others. web3, which its own rules cut off, has the rules and files from before, is
    reached again, and failed."""
    before = fleet.hosts["web3"].output("iptables-save -t filter").splitlines()[2:-2]
    _project(fleet, "rules/60-app.rules", APP)
    _project(fleet, "own/02-segments.rules", CUT)
    recap, shown = _played(fleet)
    assert (recap["web1"], recap["web2"], recap["web3"][1]) == ((1, 0), (1, 0), 1), shown
    assert "8080" in fleet.hosts["web2"].output("iptables-save")
    saved = fleet.hosts["web3"].output("iptables-save -t filter").splitlines()[2:-2]
    assert [_without_counters(line) for line in saved] == [_without_counters(line) for line in before]
    assert _status(fleet, "web3") == ("in-force", "applied", None)
    assert not fleet.hosts["web3"].file("/etc/fwguard.d/02-segments.rules").exists()


def _without_counters(line: str) -> str:
    return line.partition(" [")[0]


def test_where_the_first_host_fails_the_others_are_not_touched(fleet: Fleet) -> None:
    """A change that would cut off all of them is tried on one."""
    _project(fleet, "rules/02-segments.rules", CUT)
    recap, shown = _played(fleet, "--extra-vars fwguardd_confirm_seconds=30")
    assert (list(recap), recap["web1"][1]) == (["web1"], 1), shown
    assert "tcpmss" not in fleet.hosts["web2"].output("iptables-save")
    assert _status(fleet, "web1") == ("in-force", "applied", None)
