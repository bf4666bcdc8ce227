"""The life of the package on a machine with a real systemd: installed, started, upgraded, removed, purged.

The tests of the first bed are one story, and run in the order in which they stand here.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.system.bed import Bed
from tests.system.packaged import ROOT, built_package, left_by_builds, with_version
from tests.system.roots import pristine_root
from tests.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

UNITS = ("fwguardd.service", "fwguardd-boot.service", "fwguardd-rehearsal.socket", "fwguardd-kmsg.socket")
TYPIST = """
import json, os, pty, sys
early, answers = sys.argv[1], json.loads(sys.argv[2])
child, terminal = pty.fork()
if child == 0:
    os.execvp("sh", ["sh", "/shared/install", "/shared/fwguardd.deb"])
os.write(terminal, early.encode())
shown = ""
while True:
    try:
        shown += os.read(terminal, 4096).decode(errors="replace")
    except OSError:
        break
    if answers and answers[0][0] in shown:
        os.write(terminal, answers.pop(0)[1].encode() + b"\\n")
print(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Types on a terminal of its own: at once what is given first, then each answer when its question is shown."""

APPLY, WORKED = "Apply them now?", "Did it work?"
MINE = "-A INPUT -p tcp --dport 8080 -j ACCEPT\n"
NO_QUESTIONS = "env DEBIAN_FRONTEND=noninteractive"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, and two that dpkg takes for newer ones."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copyfile(built_package(), folder / "fwguardd.deb")
    for version in ("98", "99"):
        with_version(built_package(), version, folder).rename(folder / f"fwguardd-{version}.deb")
    return folder


@contextmanager
def _booted(packages: Path, shared: Path) -> Iterator[Bed]:
    for package in packages.iterdir():
        shutil.copyfile(package, shared / package.name)
    shutil.copyfile(ROOT / "packaging" / "install", shared / "install")
    with Bed(pristine_root(), shared) as bed:
        bed.boot()
        yield bed


@pytest.fixture(scope="module")
def host(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A booted machine that knows nothing of fwguardd."""
    with _booted(packages, tmp_path_factory.mktemp("host")) as bed:
        yield bed


@pytest.fixture
def fresh_host(packages: Path, tmp_path: Path) -> Iterator[Bed]:
    """Another one, for one test."""
    (tmp_path / "shared").mkdir()
    with _booted(packages, tmp_path / "shared") as bed:
        yield bed


def _rules(bed: Bed) -> str:
    """What is loaded for IPv4 and IPv6, each rule with the handle that it has for as long as it lives (nft(8))."""
    listed = bed.output("nft --handle --stateless list ruleset")
    return re.sub(r"counter packets \d+ bytes \d+", "counter", listed)


def test_a_first_install_changes_nothing_and_says_what_to_do(host: Bed) -> None:
    """Nothing is enabled, nothing runs, no rule is loaded; the last lines say what to look at, and how to start."""
    shown = host.output(f"{NO_QUESTIONS} dpkg --install /shared/fwguardd.deb")
    assert "fwguardctl diff" in shown
    assert "systemctl enable --now fwguardd" in shown
    for unit in UNITS:
        assert host.run(f"systemctl is-enabled {unit}", check=False).stdout == "disabled\n"
        assert host.run(f"systemctl is-active {unit}", check=False).stdout == "inactive\n"
    assert _rules(host) == ""
    assert host.output("stat --format '%U:%G %a' /etc/fwguard.d") == "root:root 755\n"


def test_what_was_installed_works(host: Bed) -> None:
    """The commands run on the distribution's Python; the shipped rules pass; the group and the catalog exist."""
    assert host.output("fwguardctl check").startswith("ok: ")
    assert "+ -P INPUT DROP" in host.output("fwguardctl diff")
    assert host.run("fwguardctl status", check=False).returncode == 3
    assert host.output("getent group fwguard").startswith("fwguard:")
    assert "571ef592ad3e4e63a163335d8bf3c27c" in host.output("journalctl --list-catalog")


def test_one_command_puts_it_in_force(host: Bed) -> None:
    """The command of the last lines starts it, and enables what the next boot needs with it."""
    host.run("systemctl enable --now fwguardd")
    assert "--dport 22 " in host.output("iptables-save")
    for unit in UNITS:
        assert host.output(f"systemctl is-enabled {unit}") == "enabled\n"


def test_an_upgrade_keeps_rules_and_changes_of_files(host: Bed) -> None:
    """The daemon is restarted in the new version; the very same rules stay loaded, the administrator's files stay, and
    the boot loader does not run."""
    host.run("sh -c 'cat >/etc/fwguard.d/50-mine.rules'", stdin=MINE)
    host.run("sh -c 'echo on_drift: report >>/etc/fwguardd.yaml'")
    host.run("rm /etc/fwguard.d/20-web.rules")
    host.run("systemctl reload fwguardd")
    before, process = _rules(host), host.show("fwguardd", "MainPID")
    assert "8080" in before
    host.run(f"{NO_QUESTIONS} dpkg --install /shared/fwguardd-98.deb")
    assert host.show("fwguardd", "ActiveState") == "active"
    assert host.show("fwguardd", "MainPID") != process
    assert _rules(host) == before
    assert host.output("tail -n 1 /etc/fwguardd.yaml") == "on_drift: report\n"
    assert host.run("test -e /etc/fwguard.d/20-web.rules", check=False).returncode == 1
    assert host.show("fwguardd-boot", "ActiveEnterTimestampMonotonic") == "0"


def test_an_upgrade_starts_nothing_that_was_stopped(host: Bed) -> None:
    """Whoever stopped the daemon finds it stopped, and the rules that it left."""
    host.run("systemctl stop fwguardd")
    before = _rules(host)
    host.run(f"{NO_QUESTIONS} dpkg --install /shared/fwguardd-99.deb")
    assert host.show("fwguardd", "ActiveState") == "inactive"
    assert _rules(host) == before


def test_removal_leaves_rules_and_settings(host: Bed) -> None:
    """The daemon stops; the rules stay loaded, and so do settings, rule files and revisions. The output says so, and
    how to accept everything."""
    host.run("systemctl start fwguardd")
    before = _rules(host)
    shown = host.output(f"{NO_QUESTIONS} dpkg --remove fwguardd")
    assert "stay in force until the next boot" in shown
    assert "$p -P $c ACCEPT; $p -F $c" in shown
    for unit in UNITS:
        assert host.run(f"systemctl is-active {unit}", check=False).stdout == "inactive\n"
    assert _rules(host) == before
    host.run("test -e /etc/fwguardd.yaml -a -e /etc/fwguard.d/10-ssh.rules -a -e /var/lib/fwguard/revisions")


def test_purging_asks_nothing_and_leaves_nothing(host: Bed) -> None:
    """Settings, shipped rule files and state go without a question; a rule file of the administrator stays. The
    commands that the output names then accept everything."""
    before = _rules(host)
    purged = host.output("dpkg --purge fwguardd")
    assert _rules(host) == before
    left = host.output("find /etc /usr /lib /var/lib /run -xdev -not -path '/run/log/*' -name '*fwguard*'").split()
    assert [path for path in left if not path.startswith("/usr/share/doc")] == ["/etc/fwguard.d"]
    assert host.output("ls /etc/fwguard.d") == "50-mine.rules\n"
    (command,) = re.findall(r"^ +(for p in .*)$", purged, re.MULTILINE)
    host.run(f"sh -c {shlex.quote(command)}")
    assert not re.search("DROP|^-A (INPUT|FORWARD|OUTPUT) ", host.output("iptables-save -t filter"), re.MULTILINE)


# --- packaging/install ---------------------------------------------------------------------------------------------


def _status(bed: Bed) -> str:
    """What fwguardctl status says; nothing where no daemon runs, or none is installed."""
    return bed.run("sh -c 'fwguardctl status'", check=False).stdout


def _install(bed: Bed, arguments: str = "", *, before: str = "true") -> subprocess.CompletedProcess[str]:
    """Run packaging/install without a terminal, in a mount namespace of its own after a command."""
    script = f"{before}; exec sh /shared/install {arguments} /shared/fwguardd.deb"
    return bed.run(f"unshare --mount sh -c {shlex.quote(script)}", check=False)


def _typist(*answers: tuple[str, str], early: str = "") -> str:
    """The command that runs packaging/install on a terminal, and types these answers to these questions."""
    return shlex.join(["python3", "-c", TYPIST, early, json.dumps(answers)])


def _install_at_a_terminal(bed: Bed, *answers: tuple[str, str], early: str = "") -> subprocess.CompletedProcess[str]:
    return bed.run(_typist(*answers, early=early), check=False)


def _history(bed: Bed) -> list[tuple[str, str]]:
    """The kind and the cause of each revision, the oldest first."""
    revisions = json.loads(bed.output("fwguardctl history --json"))["revisions"]
    return [(revision["kind"], revision["cause"]) for revision in sorted(revisions, key=lambda one: one["revision"])]


def _packages(bed: Bed) -> str:
    return bed.output("dpkg-query --show")


def test_install_refuses_what_would_not_work(fresh_host: Bed) -> None:
    """Without root, without systemd, beside another firewall, with a wrong word: a sentence, and nothing is done."""
    fake = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n"
    fresh_host.run("sh -c 'cat >/run/systemd/system/firewalld.service'", stdin=fake)
    fresh_host.run("systemctl start firewalld")
    beside = _install(fresh_host)
    assert (beside.returncode, "systemctl disable --now firewalld" in beside.stderr) == (1, True)
    fresh_host.run("systemctl stop firewalld")
    ufw = "printf '#!/bin/sh\\necho Status: active\\n' >/usr/sbin/ufw; chmod 755 /usr/sbin/ufw"
    fresh_host.run(f"sh -c {shlex.quote(ufw)}")
    beside = _install(fresh_host)
    assert (beside.returncode, "then: ufw disable" in beside.stderr) == (1, True)
    fresh_host.run("rm /usr/sbin/ufw")
    alone = _install(fresh_host, before="mount -t tmpfs none /run")
    assert (alone.returncode, "does not run systemd" in alone.stderr) == (1, True)
    nobody = fresh_host.run("setpriv --reuid=65534 sh /shared/install", check=False)
    assert (nobody.returncode, "sudo packaging/install" in nobody.stderr) == (1, True)
    assert _install(fresh_host, "--now").returncode == 2
    assert fresh_host.run("dpkg --status fwguardd", check=False).returncode == 1


def test_building_without_tools_says_what_is_missing(fresh_host: Bed) -> None:
    """Somebody who may not install anything learns what to ask for; without a network root learns that apt failed."""
    for name in ("packaging", "fwguardd"):
        shutil.copytree(ROOT / name, fresh_host.file(f"/opt/checkout/{name}"))
    fresh_host.run("chmod -R go+rX /opt/checkout")
    shown = fresh_host.run("setpriv --reuid=65534 --clear-groups /opt/checkout/packaging/build-deb", check=False)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert re.search(r"build dependencies are missing.*\n +sudo apt-get satisfy .*debhelper-compat", shown.stderr)
    shown = fresh_host.run("/opt/checkout/packaging/build-deb", check=False)
    assert (shown.returncode, "apt could not install" in shown.stderr) == (1, True)


def test_install_builds_nothing_on_the_host(fresh_host: Bed) -> None:
    """Where no package lies in dist it builds in a throwaway root file system, which here has no network: it says so,
    names the other ways, and leaves no package, file or mount. A package of this version in dist is taken, the newest;
    one of another version is not."""
    for name in ("packaging", "fwguardd", "etc"):
        shutil.copytree(ROOT / name, fresh_host.file(f"/opt/checkout/{name}"))
    fresh_host.run("mkdir /opt/checkout/dist")
    fresh_host.run("cp /shared/fwguardd-98.deb /opt/checkout/dist/fwguardd_98_all.deb")
    before, mounts = _packages(fresh_host), fresh_host.output("findmnt --list --noheadings --output TARGET")
    shown = fresh_host.run("/opt/checkout/packaging/install", check=False)
    assert (shown.returncode, "installing build dependencies, in a throwaway root" in shown.stderr) == (1, True), shown
    assert "copy it to /opt/checkout/dist" in shown.stderr
    assert "packaging/install --build-here" in shown.stderr
    assert _packages(fresh_host) == before
    assert fresh_host.output("findmnt --list --noheadings --output TARGET") == mounts
    assert fresh_host.output("find /var/tmp /tmp -name 'fwguardd*' -o -name 'tmp.*'") == ""
    for name, age in (("fwguardd_old_all.deb", "yesterday"), ("fwguardd_new_all.deb", "now")):
        fresh_host.run(f"cp /shared/fwguardd.deb /opt/checkout/dist/{name}")
        fresh_host.run(f"touch --date={age} /opt/checkout/dist/{name}")
    shown = fresh_host.run("/opt/checkout/packaging/install --no-start", check=False)
    assert (shown.returncode, "taking /opt/checkout/dist/fwguardd_new_all.deb" in shown.stdout) == (0, True), shown
    assert "newer" not in shown.stdout


def test_a_throwaway_root_builds_and_leaves_nothing() -> None:
    """The package that these tests install was made in a throwaway root, without a network since all tools are there.
    What that wrote elsewhere is gone; when it was built, that was asserted too."""
    assert built_package().exists()
    assert left_by_builds() == []


def test_install_shows_and_waits(fresh_host: Bed) -> None:
    """Without a terminal it installs, shows what would change, and starts nothing before it is asked to."""
    looked = _install(fresh_host)
    assert looked.returncode == 0, looked.stderr
    assert "+ -P INPUT DROP" in looked.stdout
    assert "the firewall is unchanged" in looked.stdout
    assert fresh_host.output("iptables-save") == ""
    started = _install(fresh_host, "--start")
    assert started.returncode == 0, started.stderr
    assert "in-force: revision 1, " in started.stdout
    assert "--dport 22 " in fresh_host.output("iptables-save")
    again = _install(fresh_host)
    assert (again.returncode, "runs on this host already" in again.stdout) == (0, True)


def test_install_at_a_terminal_keeps_only_what_is_confirmed(fresh_host: Bed) -> None:
    """A no leaves everything as it was, and so do answers typed before the questions; rules that are applied and not
    confirmed are undone; a yes keeps them. No revision is open: the first is what the kernel held."""
    early = "y\ny\n"
    refused = _install_at_a_terminal(fresh_host, (APPLY, "n"), early=early)
    assert (refused.returncode, fresh_host.output("iptables-save")) == (0, ""), refused.stdout
    cut_off = _install_at_a_terminal(fresh_host, (APPLY, "y\ny"), (WORKED, "n"))
    assert (cut_off.returncode, "not confirmed" in cut_off.stdout) == (1, True), cut_off.stdout
    assert "DROP" not in fresh_host.output("iptables-save")
    found, applied, undone = _history(fresh_host)
    assert (found, applied) == (("rules", "found in the kernel"), ("rules", "reload"))
    assert undone == ("rules", "rollback to revision 1")
    fresh_host.run("systemctl disable --now fwguardd")
    kept = _install_at_a_terminal(fresh_host, (APPLY, "y"), (WORKED, "y"))
    assert kept.returncode == 0, kept.stdout
    assert ":INPUT DROP" in fresh_host.output("iptables-save")
    assert "is undone" not in fresh_host.output("fwguardctl status")
    assert _history(fresh_host)[-1] == ("rules", "reload")


def test_install_outlives_the_connection_that_it_cuts(fresh_host: Bed) -> None:
    """An administrator who loses the terminal cannot answer any more; the daemon then undoes the change by itself."""
    fresh_host.run(f"systemd-run --unit=seat {_typist((APPLY, 'y'))}")
    wait_until(lambda: "waits to be confirmed" in _status(fresh_host), "a change that waits", pause=0.2)
    fresh_host.run("systemctl kill --signal=KILL seat")
    wait_until(lambda: fresh_host.show("seat", "ActiveState") != "active", "the end of the terminal")
    pending = json.loads(fresh_host.output("fwguardctl status --json"))["pending"]
    assert 0 < pending["seconds_left"] <= 60
    assert pending["back_to"] == 1
    assert ":INPUT DROP" in fresh_host.output("iptables-save")


def test_install_does_not_start_where_something_bites(fresh_host: Bed) -> None:
    """What fwguardctl doctor finds is shown, and nothing is started before somebody has looked at it."""
    fresh_host.run("systemctl enable nftables")
    shown = _install(fresh_host, "--start")
    assert (shown.returncode, "[other-firewall]" in shown.stdout) == (1, True), shown.stdout
    assert "check again with fwguardctl doctor" in shown.stdout
    assert fresh_host.output("iptables-save") == ""


def test_install_takes_nobodys_rules_away(fresh_host: Bed) -> None:
    """Where rules are loaded that no rule file has, it shows them and does not start, even if it was asked to."""
    fresh_host.run("iptables -A INPUT -s 192.0.2.9 -j ACCEPT")
    before = _rules(fresh_host)
    assert _install(fresh_host).returncode == 0
    shown = _install(fresh_host, "--start")
    assert (shown.returncode, "- -A INPUT -s 192.0.2.9/32 -j ACCEPT" in shown.stdout) == (1, True)
    assert _rules(fresh_host) == before
