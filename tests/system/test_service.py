"""fwguardd as a service of a real systemd, with every directive of its units in force."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.system.bed import Guarded

GOOD = "-A INPUT -p tcp --dport 8080 -j ACCEPT\n"
BAD = "-A INPUT -p tcp --dport 80810 -j ACCEPT\n"
REASON = '/etc/fwguard.d/50-app.rules:1: error: "80810" is neither a port'

RELOADS = scaled(gate=10, long=100)
"""Reloads during which a service adds and removes rules; a long run has 100."""

AS_A_SERVICE = "systemd-run --quiet --wait --collect --unit=opener sh -c '{command}'"
"""Runs a command as a service of its own."""

LEND = """
import sys
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool

connections = 0

def count(event, _):
    global connections
    connections += event == "socket.connect"

sys.addaudithook(count)
pool = NamespacePool(lambda: NamespaceMethod.SERVICE)
pool.refill()
before = connections
with pool.acquire() as scratch:
    scratch.send("nft", 4, [{"save": True}])
    assert scratch.receive()
print(before, connections - before)
pool.close()
"""

PROVE = """
import sys
from ipaddress import ip_address
from fwguardd.kernel.bed import Beds
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool
from fwguardd.packets.host import Host, Interface, Route, Sysctls
from fwguardd.packets.model import Journey, Packet
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.save_format import read_saved

RULES = {
    Family.IPV4: "*filter\\n:INPUT DROP [0:0]\\n:OUTPUT ACCEPT [0:0]\\n"
    "[0:0] -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\\n"
    "[0:0] -A OUTPUT -m owner --uid-owner 33 -j REJECT\\nCOMMIT\\n",
    Family.IPV6: "*filter\\n:FORWARD ACCEPT [0:0]\\n[0:0] -A FORWARD -i eth1 -j DROP\\nCOMMIT\\n",
}
HOST = Host(
    (Interface("eth0", addresses=("192.0.2.1/24", "2001:db8::1/64")), Interface("eth1")),
    (Route("0.0.0.0/0", dev="eth0", scope=253), Route("2001:db8::/64", dev="eth0")),
    sysctls=Sysctls(ipv6_forwarding=True),
)

def packet(source, destination, port, into=None, out=None, uid=None):
    family = Family.IPV4 if "." in source else Family.IPV6
    return Packet(family, "tcp", ip_address(source), ip_address(destination), 40000, port, into, out, uid=uid)

PACKETS = [
    packet("198.51.100.7", "192.0.2.1", 22, "eth0"),
    packet("198.51.100.7", "192.0.2.1", 23, "eth0"),
    packet("192.0.2.1", "198.51.100.7", 80, None, "eth0"),
    packet("192.0.2.1", "198.51.100.7", 80, None, "eth0", 33),
    packet("2001:db8:1::7", "2001:db8::7", 80, "eth0", "eth0"),
    packet("2001:db8:1::7", "2001:db8::7", 80, "eth1", "eth0"),
]
for backend in ("nft", "legacy"):
    pool = NamespacePool(lambda: NamespaceMethod.SERVICE)
    rules = {family: read_saved(family, text).shown for family, text in RULES.items()}
    with Beds(backend, pool).prove(rules, HOST) as bed:
        print(*[f"{one.verdict}/{one.routed}" if isinstance(one, Journey) else one for one in bed.send(PACKETS)])
        print(bed.left_out)
    pool.close()
"""


def test_it_starts_and_its_rules_are_in_force(guarded: Guarded) -> None:
    """A start returns when the first pass is done: the rules are loaded, and the status line says so."""
    assert guarded.bed.show("fwguardd", "ActiveState") == "active"
    assert "-A INPUT -p tcp -m tcp --dport 22 " in guarded.saved()
    assert guarded.bed.show("fwguardd", "StatusText").startswith("in-force: revision 1, ")


def test_it_has_only_the_privileges_that_it_needs(guarded: Guarded) -> None:
    """The sandbox is real: the kernel says that the process has two capabilities, a filter and namespaces of its own,
    and not one of a file system that it may write beside its own directories."""
    main = guarded.bed.show("fwguardd", "MainPID")
    status = dict(line.split(":\t", 1) for line in guarded.bed.output(f"cat /proc/{main}/status").splitlines())
    granted = int(status["CapBnd"], 16)
    assert [number for number in range(64) if granted >> number & 1] == [12, 13]  # CAP_NET_ADMIN, CAP_NET_RAW
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    mounts = [line.split() for line in guarded.bed.output(f"cat /proc/{main}/mounts").splitlines()]
    disks = {fields[1] for fields in mounts if fields[2] in ("overlay", "tmpfs") and "rw" in fields[3].split(",")}
    assert {path for path in disks if not path.startswith(("/dev", "/tmp", "/var/tmp", "/run/xtables.lock"))} == {
        "/run/fwguard",
        "/var/lib/fwguard",
    }


def test_the_exposure_level_does_not_rise(guarded: Guarded) -> None:
    """The exposure level of systemd-analyze security stays at most what it is."""
    levels = {
        "fwguardd": 2.0,
        "fwguardd-rehearsal@1": 1.3,
        "fwguardd-kmsg@1": 1.0,
        "fwguardd-lists": 1.5,
        "fwguardd-metrics": 1.5,
    }
    for unit, most in levels.items():
        report = guarded.bed.output(f"systemd-analyze security --no-pager {unit}.service")
        figure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
        assert figure is not None
        assert float(figure[1]) <= most, report


def test_units_pass_systemd_analyze_verify(guarded: Guarded) -> None:
    """systemd-analyze verify reports nothing, except that the test bed has no manual pages."""
    verified = guarded.bed.run(
        "systemd-analyze verify fwguardd.service fwguardd-boot.service fwguardd-rehearsal.socket fwguardd-kmsg.socket "
        "fwguardd-lists.timer fwguardd-lists.service fwguardd-metrics.service",
        check=False,
    )
    assert [line for line in verified.stderr.splitlines() if "Command 'man " not in line] == []


def test_lists_are_fetched_in_a_sandbox(guarded: Guarded) -> None:
    """The unit runs as a user of its own, who reads the settings; what it has fetched the daemon may read."""
    bed, settings = guarded.bed, guarded.bed.file("/etc/fwguardd.yaml")
    before = settings.read_text()
    settings.write_text(before + 'lists: [{name: scanners, url: "https://localhost/none"}]\n')
    assert bed.run("systemctl start fwguardd-lists", check=False).returncode != 0
    told = [str(entry["MESSAGE"]) for entry in bed.journal("_SYSTEMD_UNIT=fwguardd-lists.service")]
    assert any("list scanners from https://localhost/none: " in message for message in told), told
    bed.run("sh -c 'echo 192.0.2.0/24 >/var/lib/fwguard-lists/scanners.set'")
    guarded.drop("50-app.rules", "-A INPUT -m set --match-set scanners src -j DROP\n")
    bed.run("fwguardctl reload")
    assert "add scanners 192.0.2.0/24" in bed.output("ipset save")
    guarded.remove("50-app.rules")
    settings.write_text(before)
    bed.run("fwguardctl reload")


def test_metrics_are_served_from_a_sandbox(guarded: Guarded) -> None:
    """The unit runs as a user of its own in the group that may read, and answers on this host what the daemon measures;
    the daemon may write the file of metrics, which everybody may read."""
    bed, settings = guarded.bed, guarded.bed.file("/etc/fwguardd.yaml")
    # The library is not in the root file system of the machine: it is optional.
    library = Path("/usr/lib/python3/dist-packages")
    shutil.copytree(library / "prometheus_client", bed.file(f"{library}/prometheus_client"), dirs_exist_ok=True)
    shutil.copy(library / "decorator.py", bed.file(f"{library}/decorator.py"))
    before = settings.read_text()
    settings.write_text(before + "metrics: {textfile: /run/fwguard/fwguard.prom}\n")
    bed.run("fwguardctl reload")
    bed.run("systemctl start fwguardd-metrics")
    fetch = "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:9786/\").read().decode())'"
    wait_until(lambda: "fwguard_up 1.0\n" in bed.run(fetch, check=False).stdout, "the metrics")
    assert 'fwguard_state{state="in-force"} 1.0' in bed.output(fetch)
    wait_until(lambda: "fwguard_revision" in bed.run("cat /run/fwguard/fwguard.prom", check=False).stdout, "the file")
    assert bed.output("stat -c %a /run/fwguard/fwguard.prom").strip() == "644"
    bed.run("systemctl stop fwguardd-metrics")
    settings.write_text(before)
    bed.run("fwguardctl reload")


def test_a_dropped_file_is_in_force(guarded: Guarded) -> None:
    """A file that appears in the rules directory is rehearsed in a namespace that systemd provides, and loaded."""
    guarded.drop("50-app.rules", GOOD)
    wait_until(lambda: "--dport 8080 " in guarded.saved(), "the rule of the new file")
    guarded.remove("50-app.rules")
    assert "--dport 8080 " not in guarded.saved()


def test_rules_may_name_ipsets(guarded: Guarded) -> None:
    """The sandbox lets the daemon look at the host's sets, and the rehearsal make empty copies of them."""
    rule = "-A INPUT -m set --match-set blocked src -j DROP"
    guarded.drop("50-app.rules", f"-4 {rule}\n")
    assert 'there is no ipset "blocked"' in guarded.bed.run("fwguardctl reload", check=False).stdout
    make = (
        "import socket; from fwguardd.kernel.ipsets import make_empty_copies as make; make({'blocked': socket.AF_INET})"
    )
    guarded.bed.run("python3 -", stdin=make)
    guarded.bed.run("systemctl reload fwguardd")
    assert rule in guarded.saved()
    guarded.remove("50-app.rules")


def test_reload_returns_the_result(guarded: Guarded) -> None:
    """A reload waits for the pass: 0 for what is in force then; not 0 for a refusal, which systemctl status
    tells, and which leaves the rules as they were."""
    bed = guarded.bed
    guarded.drop("50-app.rules", GOOD)
    assert bed.run("systemctl reload fwguardd").returncode == 0
    assert "--dport 8080 " in (before := guarded.saved())
    guarded.drop("50-app.rules", BAD)
    refused = bed.run("systemctl reload fwguardd", check=False)
    assert refused.returncode != 0
    assert "systemctl status fwguardd.service" in refused.stderr
    assert REASON in bed.output("systemctl status --no-pager --full --lines=20 fwguardd")
    asked = bed.run("fwguardctl reload", check=False)
    assert (asked.returncode, REASON in asked.stdout) == (1, True)
    assert guarded.saved() == before
    guarded.remove("50-app.rules")


def test_rules_of_a_service_stay_over_many_reloads(guarded: Guarded) -> None:
    """A service that opens ports for a time, as fwknopd does, keeps its chain, its jump and each of its rules, while
    the rule files change. The kernel names processes by their ids outside of the bed, so that the service is not
    recognized there: its chain is reported once, stays, and is adopted."""
    bed = guarded.bed
    bed.run(AS_A_SERVICE.format(command="iptables -N OPENER && iptables -I INPUT -j OPENER"))
    wait_until(lambda: "undecided" in bed.output("fwguardctl adopt"), "the chain")
    assert bed.run("fwguardctl status", check=False).returncode == 1
    bed.run("fwguardctl adopt --all")
    assert bed.run("fwguardctl status").stdout.startswith("in-force")
    for number in range(RELOADS):
        rule = f"OPENER -s 192.0.2.{number + 1} -p tcp --dport 22 -j ACCEPT"
        bed.run(AS_A_SERVICE.format(command=f"iptables -A {rule}"))
        guarded.drop("50-app.rules", f"-A INPUT -p tcp --dport {8000 + number} -j ACCEPT\n")
        bed.run("fwguardctl reload")
        saved = guarded.saved()
        assert f"--dport {8000 + number} " in saved
        assert f"-A OPENER -s 192.0.2.{number + 1}/32 " in saved
        assert "-A INPUT -j OPENER" in saved
        bed.run(AS_A_SERVICE.format(command=f"iptables -D {rule}"))
    listed = json.loads(bed.output("fwguardctl adopt --json"))["rules"]
    assert [(rule["chain"], rule["rule"], rule["standing"]) for rule in listed] == [("OPENER", None, "kept")]
    messages = [str(entry["MESSAGE"]) for entry in bed.journal("_SYSTEMD_UNIT=fwguardd.service")]
    about = [message for message in messages if "OPENER" in message]
    assert ["An administrator has to decide" in message for message in about] == [True, False]
    bed.run(f"fwguardctl adopt --remove {listed[0]['number']}")
    assert "OPENER" not in guarded.saved()
    guarded.remove("50-app.rules")


def test_rehearsals_make_no_noise(guarded: Guarded) -> None:
    """The units that begin and end with each rehearsal leave no line in the journal, and no trace when they end."""
    messages = [str(entry["MESSAGE"]) for entry in guarded.bed.journal("_PID=1")]
    assert [message for message in messages if "rehearsal@" in message] == []
    assert "failed" not in guarded.bed.output("systemctl list-units --all --no-legend fwguardd-rehearsal*")
    assert int(guarded.bed.show("fwguardd-rehearsal.socket", "NAccepted")) > 2
    assert int(guarded.bed.show("fwguardd-rehearsal.socket", "NConnections")) <= 4


def test_a_namespace_is_ready_before_it_is_needed(guarded: Guarded) -> None:
    """The pool asks systemd for two workers beforehand, so that a rehearsal asks for none and waits for no start."""
    assert guarded.bed.run("python3 -", stdin=LEND).stdout.split() == ["2", "0"]


def test_other_users_may_read_at_most(guarded: Guarded) -> None:
    """A member of the group fwguard may use the verbs that only read; users outside of it may not even connect."""
    as_member = "setpriv --reuid=65534 --regid=65534 --groups={} fwguardctl "
    member = as_member.format(guarded.bed.output("getent group fwguard").split(":")[2])
    assert json.loads(guarded.bed.output(f"{member} status --json"))["in_force"]["revision"] >= 1
    for verb in ("reload", "open", "resume", "confirm", "rollback"):
        refused = guarded.bed.run(member + verb, check=False)
        assert refused.returncode == 4, f"{verb}: {refused.stdout}{refused.stderr}"
    stranger = guarded.bed.run(as_member.format("65534") + "status", check=False)
    assert stranger.returncode == 4, stranger.stderr


def test_one_that_hangs_is_replaced(guarded: Guarded) -> None:
    """A daemon that hangs is killed by the watchdog and started again; the rules stay loaded meanwhile."""
    bed, before = guarded.bed, guarded.saved()
    with guarded.drop_in("fwguardd.service", "WatchdogSec=1\nRestartSec=0"):
        first = bed.show("fwguardd", "MainPID")
        bed.run(f"kill -STOP {first}")
        wait_until(lambda: bed.show("fwguardd", "MainPID") not in (first, "0"), "the next daemon")
        wait_until(lambda: bed.show("fwguardd", "ActiveState") == "active", "its first pass")
        assert bed.show("fwguardd", "NRestarts") == "1"
        assert "watchdog" in bed.output("journalctl --no-pager _PID=1 UNIT=fwguardd.service").lower()
        assert guarded.saved() == before


def test_a_worker_without_a_namespace_does_nothing(guarded: Guarded) -> None:
    """If the unit of the workers loses its PrivateNetwork=yes, a worker refuses to run in the host's network namespace,
    and reports that: the rehearsal fails, and the rules are as they were."""
    bed, before = guarded.bed, guarded.saved()
    with guarded.drop_in("fwguardd-rehearsal@.service", "PrivateNetwork=no"):
        guarded.drop("50-app.rules", GOOD)
        failed = bed.run("fwguardctl reload", check=False)
        assert failed.returncode == 5, failed.stdout
        assert "the rehearsal worker" in failed.stdout
        assert bed.journal("MESSAGE=fwguardd: a rehearsal worker refuses to run in the network namespace of its client")
        assert guarded.saved() == before
    guarded.remove("50-app.rules")


def test_a_process_that_changes_the_rules_can_be_identified(guarded: Guarded) -> None:
    """From inside the sandbox, a process of another user is identified with its command line, user and unit."""
    bed = guarded.bed
    bed.run("systemd-run --quiet --unit=stranger --uid=65534 sleep 1000")
    stranger = bed.show("stranger", "MainPID")
    look = f"from fwguardd.kernel.attribution import read_author; print(read_author({stranger}, 'sleep'))"
    with guarded.drop_in("fwguardd.service", f'ExecStartPost=/usr/bin/python3 -I -c "{look}"'):
        messages = [
            str(entry["MESSAGE"]) for entry in bed.journal("_SYSTEMD_UNIT=fwguardd.service", "_TRANSPORT=stdout")
        ]
    seen = next(line for line in messages if line.startswith(f"process {stranger} "))
    assert '(sleep) "/usr/bin/sleep 1000" by nobody, child of 1 (systemd)' in seen
    assert seen.endswith("in stranger.service")


def test_legacy_iptables_works_in_it_too(guarded: Guarded) -> None:
    """What only legacy iptables needs (its lock, raw sockets, its list of tables) is there, in the service and in the
    rehearsal. The daemon is stopped at the end, and its rules stay."""
    bed, settings = guarded.bed, guarded.bed.file("/etc/fwguardd.yaml")
    bed.run("systemctl stop fwguardd")
    bed.run("nft flush ruleset")
    bed.run("rm -r /var/lib/fwguard/revisions")
    settings.write_text(f"{settings.read_text()}backend: legacy\n")
    bed.run("systemctl start fwguardd")
    guarded.drop("50-app.rules", GOOD)
    bed.run("systemctl reload fwguardd")
    assert "--dport 8080 " in bed.output("iptables-legacy-save")
    assert "-A INPUT" not in bed.output("iptables-nft-save")
    bed.run("systemctl stop fwguardd")
    assert "--dport 8080 " in bed.output("iptables-legacy-save")


def test_packets_are_sent_in_a_namespace_of_systemd(guarded: Guarded) -> None:
    """A rehearsal worker of systemd, with every directive of its unit in force, rebuilds the network of a host and
    sends packets through rules there: inbound, outbound of a user, and forwarded."""
    guarded.bed.file("/var/tmp/prove.py").write_text(PROVE)
    printed = guarded.bed.output("python3 /var/tmp/prove.py").splitlines()
    verdicts = "accept/local drop/local accept/eth0 reject/eth0 accept/eth0 drop/eth0"
    assert printed == [verdicts, "()", verdicts, "()"]
