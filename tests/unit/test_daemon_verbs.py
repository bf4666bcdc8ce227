"""The verbs of fwguardctl that ask the daemon: what they print and how they end, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.control.protocol import Code, Request, RequestError
from fwguardd.control.server import ServerLimits
from fwguardd.ctl import daemon_verbs
from fwguardd.ctl.command_line import full_parser
from fwguardd.kernel import privilege
from tests.unit.canned import (
    APPLIED,
    DRIFT,
    FAILED,
    FINDING,
    HISTORY,
    IN_FORCE,
    PENDING,
    REFUSED,
    SHOWN,
    STATUS,
    Canned,
)
from tests.unit.serving import Serving, let_others_enter
from tests.waiting import LONGEST

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    Ctl = Callable[..., tuple[int, str, str]]

    from fwguardd.control.server import Caller

NOBODY = 65534
WAITS = "revision 42 is rolled back in 1 min unless it is confirmed; revision 41 comes back"


@pytest.fixture
def canned() -> Canned:
    """What the daemon answers."""
    return Canned()


@pytest.fixture
def socket_path(tmp_path: Path, canned: Canned, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The socket of a daemon that gives canned answers, on a host in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    with Serving(tmp_path / "control.sock", canned, lambda caller, _: caller.uid == os.getuid()) as serving:
        yield serving.path
    monkeypatch.undo()
    time.tzset()


def parse(*argv: str) -> argparse.Namespace:
    """The options, parsed as fwguardctl does."""
    return full_parser().parse_args(argv)


@pytest.fixture(autouse=True)
def _as_a_user_who_may_not_read_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is a canned one, so there is no change whose impact on this machine could be measured."""
    monkeypatch.setattr(privilege, "has_capability", lambda _capability: False)


@pytest.fixture
def ctl(socket_path: Path, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """Runs a verb: exit code, output, errors."""

    def run(*argv: str) -> tuple[int, str, str]:
        code = daemon_verbs.run(parse(*argv, "--socket", str(socket_path)))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_status_without_problems(ctl: Ctl) -> None:
    """Without problems, status is a sentence and five facts."""
    code, out, _ = ctl("status")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "in-force: revision 41, 50 rules, compared at 20:26:41"
    assert lines[2].startswith("state     in-force, compared at 20:26:41 (")
    assert lines[3].startswith("revision  41, 17 IPv4 and 33 IPv6 rules, loaded 2026-05-28 20:26:40 (")
    assert lines[3].endswith(" ago, reload)")
    assert lines[4:] == [
        "drift     none; repaired when found",
        "denials   123 lines from kmsg: 120 denied, 3 logged, none lost",
        "            20 reported + 100 in summaries + 3 waiting",
        "daemon    fwguardd 1.2.3, iptables 1.8.9, nft backend",
        "files     /etc/fwguard.d: applied",
    ]


@pytest.mark.parametrize("state", ["drifted", "emergency", "open", "unverified", "unmanaged"])
def test_status_ends_with_1_unless_the_revision_is_in_force(ctl: Ctl, canned: Canned, state: str) -> None:
    """The state is the exit code, and it is the first word, in the answer for people and in that for programs."""
    canned.results["status"] = {**STATUS, "sentence": f"{state}: the facts", "state": state}
    code, out, _ = ctl("status")
    assert (code, out.splitlines()[0]) == (1, f"{state}: the facts")
    assert out.splitlines()[2].startswith(f"state     {state}, compared at 20:26:41 (")
    assert any(line.startswith("drift     not compared") for line in out.splitlines()) == (state in NOT_COMPARED)
    code, out, _ = ctl("status", "--json")
    assert (code, json.loads(out)["state"]) == (1, state)


NOT_COMPARED = ("open", "unmanaged")
"""The states in which there is nothing to compare the kernel with."""


def test_history_says_that_the_revision_is_not_in_force(ctl: Ctl, canned: Canned) -> None:
    """The revision that was loaded last is marked; that the kernel does not hold it stands below."""
    canned.results["history"] = {**HISTORY, "state": "emergency", "sentence": "emergency: the facts"}
    assert "emergency: the facts" in ctl("history")[1].splitlines()


def test_status_says_why_denials_come_from_elsewhere(ctl: Ctl, canned: Canned) -> None:
    """A source that is not the host's own kernel log has its reason in the line below; the kernel log needs none."""

    def shown(**denials: object) -> list[str]:
        canned.results["status"] = {**STATUS, "denials": {**STATUS["denials"], **denials}}
        return [line for line in ctl("status")[1].splitlines() if line.startswith("            from ")]

    assert shown(source="nflog", why="LOG is silent here") == ["            from nflog: LOG is silent here"]
    assert shown(source="nflog", why="") == []
    assert shown(source="kmsg", why="LOG rules write there") == []


def test_status_does_not_advise_to_reload_refused_files(ctl: Ctl, canned: Canned) -> None:
    """Files that were held, and have errors since they changed, are refused; "held" is not printed beside it."""
    held = {"reason": "revision 42 was not confirmed"}
    refusal = {"when": time.time(), "findings": [FINDING]}
    canned.results["status"] = {**STATUS, "held": held, "last_refusal": refusal, "files": "refused"}
    _, out, _ = ctl("status")
    assert "refused   the rule files" in out
    assert "held" not in out


def test_status_with_problems(ctl: Ctl, canned: Canned) -> None:
    """Status names every problem: what waits, what is held, what was refused and why, what drifted, what was lost."""
    canned.results["status"] = {
        **STATUS,
        "drift": {"count": 2, "repair": True, "paused_seconds": 900.0, "differences": DRIFT["differences"]},
        "last_refusal": {"when": time.time() - 7210, "findings": [FINDING]},
        "pending": PENDING,
        "held": {"reason": "revision 42 was not confirmed"},
        "denials": {"source": None, "denied": 0, "logged": 0, "lost": 0, "unparsed": 0},
    }
    code, out, _ = ctl("status")
    assert code == 0
    assert out.splitlines()[4:] == [
        f"pending   {WAITS}; to keep it: fwguardctl confirm",
        "held      revision 42 was not confirmed; the rule files are not applied; to apply them: fwguardctl reload",
        "refused   the rule files, 2 h ago, 1 error: see below",
        "drift     2 differences; repairs are paused for 15 min; to end that: fwguardctl resume",
        "            - ipv4 filter -A INPUT -j DROP",
        "            + ipv4 filter -A INPUT -j ACCEPT",
        "denials   not read; see: journalctl -u fwguardd",
        "daemon    fwguardd 1.2.3, iptables 1.8.9, nft backend",
        "files     /etc/fwguard.d: applied",
        "",
        "/etc/fwguard.d/20-web.rules:14: error: jump to chain WEB, which no file declares [undeclared-chain]",
        "    -A INPUT -j WEB",
        '    → declare it with ":WEB - [0:0]"',
    ]


def test_status_prints_each_problem_with_denials(ctl: Ctl, canned: Canned) -> None:
    """Losses, lines of unknown form, dropped events, and counts that do not add up are all printed."""
    denials = {**STATUS["denials"], "unparsed": 2, "lost": 7, "dropped_events": 5}
    canned.results["status"] = {**STATUS, "denials": denials}
    assert (
        "denials   123 lines from kmsg: 120 denied, 3 logged; 2 unparsed, 7 lost, 5 events dropped, the counts do not "
        "add up: a bug in fwguardd"
    ) in ctl("status")[1].splitlines()


def test_status_after_a_fight(ctl: Ctl, canned: Canned) -> None:
    """Status says that repairs are suspended, for how long, in which chain, who changes it, and what ends that."""
    fight = {"chain": "ipv4 filter INPUT", "culprit": "process 812 (sh)", "seconds_left": 240.0}
    drift: dict[str, Any] = {"count": 0, "repair": False, "paused_seconds": None, "fight": fight, "differences": []}
    canned.results["status"] = {**STATUS, "drift": drift}
    _, out, _ = ctl("status")
    what = "repairs are suspended for 4 min: ipv4 filter INPUT is changed again after each repair, by process 812 (sh)"
    assert f"drift     none; {what}; to repair it now: fwguardctl resume" in out.splitlines()


@pytest.mark.parametrize(
    ("in_force", "line"),
    [
        (None, "revision  none"),
        ({**IN_FORCE, "kind": "open"}, "revision  41, everything is accepted, 2026-05-28 20:26:40"),
    ],
)
def test_status_does_not_hide_that_nothing_guards(ctl: Ctl, canned: Canned, in_force: object, line: str) -> None:
    """That everything is accepted, or that fwguardd has loaded nothing, is the first line."""
    canned.results["status"] = {**STATUS, "in_force": in_force}
    code, out, _ = ctl("status")
    assert code == 0
    assert out.splitlines()[3].startswith(line)


OUTCOMES = {
    "applied": (APPLIED, 0, ["applied (2 changes): revision 42 in force, 50 rules"]),
    "unchanged": (
        {**APPLIED, "outcome": "unchanged", "changes": 0}, 0, ["unchanged: revision 42 in force, 50 rules"],
    ),
    "refused": (REFUSED, 1, [
        "/etc/fwguard.d/20-web.rules:14: error: jump to chain WEB, which no file declares [undeclared-chain]",
        "    -A INPUT -j WEB",
        '    → declare it with ":WEB - [0:0]"',
        "refused: nothing was changed; revision 41 stays in force, 50 rules",
    ]),
    "failed": (FAILED, 5, [
        "failed: the lock of iptables is held by process 812 (apt)",
        "    revision 41 stays in force, 50 rules",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["reload", "rollback", "open"])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_exit_code_of_a_change_is_its_outcome(ctl: Ctl, canned: Canned, verb: str, outcome: str) -> None:
    """0 if it is in force, 1 if it was refused, 5 if it failed; the last sentence says what is in force now."""
    result, code, lines = OUTCOMES[outcome]
    canned.results[verb] = result
    assert ctl(verb) == (code, "\n".join(lines) + "\n", "")
    assert ctl(verb, "--json")[0] == code


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_confirmation_says_what_it_means(ctl: Ctl, canned: Canned, outcome: str) -> None:
    """A confirmation that succeeds says that the revision stays, whether or not anything was written; a failure is
    printed as for any other change."""
    result, code, lines = OUTCOMES[outcome]
    canned.results["confirm"] = result
    if code == 0:
        lines = ["confirmed: revision 42 stays, also after a reboot"]
    assert ctl("confirm") == (code, "\n".join(lines) + "\n", "")
    assert ctl("confirm", "--json")[0] == code


def test_an_unknown_outcome_is_a_failure(ctl: Ctl, canned: Canned) -> None:
    """Only a known success ends with 0."""
    for result in ({**APPLIED, "outcome": "postponed"}, {}):
        canned.results["reload"] = result
        assert ctl("reload", "--json")[0] == 5


def test_a_reload_that_waits_for_confirmation_says_how_to_confirm(ctl: Ctl, canned: Canned, socket_path: Path) -> None:
    """The last line is the exact command, which reaches the same daemon."""
    canned.results["reload"] = {**APPLIED, "pending": PENDING}
    code, out, _ = ctl("reload", "--confirm", "90s")
    assert code == 0
    assert out.splitlines() == [
        "applied (2 changes): revision 42 in force, 50 rules",
        WAITS,
        f"to keep it: fwguardctl confirm --socket {socket_path}",
    ]
    assert _given(canned) == [("reload", {"confirm_seconds": 90.0})]


CONNECTION = "198.51.100.7 54321 192.0.2.1 22"


def test_a_reload_names_the_ssh_session_that_asks(ctl: Ctl, canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon gets SSH_CONNECTION, for the lockout guard; one of an earlier version, which does not know the
    argument, is asked without it."""
    monkeypatch.setenv("SSH_CONNECTION", CONNECTION)
    ctl("reload", "--force")
    assert _given(canned) == [("reload", {"force": True, "ssh_connection": CONNECTION})]
    canned.asked.clear()
    canned.results["reload"] = RequestError(Code.BAD_REQUEST, "reload has no argument 'ssh_connection'")
    ctl("reload")
    assert _given(canned) == [("reload", {"ssh_connection": CONNECTION}), ("reload", {})]


def _given(canned: Canned) -> list[tuple[str, dict[str, Any]]]:
    """What was asked, without the arguments that were not given."""
    return [
        (verb, {name: value for name, value in arguments.items() if value is not None})
        for verb, arguments in canned.asked
    ]


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (["reload"], {}),
        (["reload", "--confirm"], {"confirm_seconds": 60.0}),
        (["reload", "--confirm", "5m"], {"confirm_seconds": 300.0}),
        (["rollback"], {}), (["rollback", "41"], {"revision": 41}),
        (["history"], {}), (["history", "--limit", "5"], {"limit": 5}),
        (["show", "41"], {"revision": 41}), (["pause", "15m"], {"seconds": 900.0}),
        (["status"], {}), (["drift"], {}), (["confirm"], {}), (["open"], {}),
            (["open", "--for", "15m"], {"seconds": 900.0}), (["resume"], {}),
        (["reload", "--take-over"], {"take_over": True}), (["reload", "--force"], {"force": True}),
        (["adopt", "--all"], {}),
        (["adopt", "3", "1"], {"numbers": (3, 1)}),
        (["adopt", "--remove", "3"], {"numbers": (3,), "remove": True}),
    ],
)  # fmt: skip
def test_every_verb_sends_its_arguments(ctl: Ctl, canned: Canned, argv: list[str], asked: dict[str, Any]) -> None:
    """The daemon gets each verb with the arguments of the command line."""
    ctl(*argv)
    assert _given(canned) == [(argv[0], asked)]


def test_history_is_a_table(ctl: Ctl, canned: Canned) -> None:
    """Revisions are aligned, the one in force is marked, and damaged ones are named."""
    code, out, _ = ctl("history")
    assert code == 0
    assert out.splitlines() == [
        "   REVISION  WHEN                 IPV4  IPV6  FILES  CAUSE  BY",
        "*        42  2026-05-28 21:26:40  open  open      0  open   root, with fwguardctl",
        "          9  2026-05-28 20:26:40    17    33      4  files",
        "damaged: revisions/8",
    ]
    canned.results["history"] = {"revisions": [], "damaged": []}
    assert ctl("history") == (0, "No revision is kept yet.\n", "")


def test_show_prints_files_and_texts(ctl: Ctl) -> None:
    """A revision is shown with its origin, its files, and its rules as iptables-save prints them."""
    code, out, _ = ctl("show", "41")
    assert code == 0
    assert out.splitlines() == [
        "revision 41",
        "when      2026-05-28 20:26:40",
        "cause     reload, by uid 0, pid 812 (fwguardctl)",
        "made with iptables 1.8.9, nft backend, Linux 6.1.0-21-amd64",
        "",
        "# /etc/fwguard.d/10-base.rules",
        "# hello",
        "-A INPUT        -j ACCEPT",
        "",
        "# ipv4, as iptables-save prints it",
        "*filter",
        "COMMIT",
        "",
        "# ipv6, as iptables-save prints it",
        "*filter",
        "COMMIT",
    ]


def test_drift_ends_with_1(ctl: Ctl, canned: Canned) -> None:
    """Drift ends with 1 and lists every difference; no drift ends with 0 and says so."""
    code, out, _ = ctl("drift")
    assert code == 1
    assert out == "- ipv4 filter -A INPUT -j DROP\n+ ipv4 filter -A INPUT -j ACCEPT\n2 differences\n"
    assert ctl("drift", "--json")[0] == 1
    canned.results["drift"] = {"count": 0, "differences": []}
    assert ctl("drift") == (0, "no drift: the kernel holds the revision in force\n", "")
    canned.results["drift"] = {"count": 3, "differences": DRIFT["differences"]}
    assert "… and 1 more\n3 differences\n" in ctl("drift")[1]


def test_rules_to_decide_about_are_no_agreement(ctl: Ctl, canned: Canned) -> None:
    """Rules of unknown processes are listed by drift, which ends with 1, and status says so in the row of drift."""
    undecided = ["ipv4 filter -A INPUT -j ACCEPT"]
    canned.results["drift"] = {"count": 0, "differences": [], "undecided": undecided}
    code, out, _ = ctl("drift")
    assert code == 1
    advice = "1 rule of an unknown process stays until you decide: fwguardctl adopt"
    assert out == f"+ ipv4 filter -A INPUT -j ACCEPT\n{advice}\n"
    drift = {**STATUS["drift"], "count": 0, "differences": [], "undecided": undecided}
    canned.results["status"] = {**STATUS, "state": "drifted", "drift": drift}
    assert f"none; {advice}" in " ".join(ctl("status")[1].split())


def test_a_pause_says_when_it_ends(ctl: Ctl) -> None:
    """A pause says how long it lasts and how to end it."""
    code, out, _ = ctl("pause", "15m")
    assert code == 0
    assert out.startswith("paused: drift is not repaired for 15 min, until ")
    assert out.endswith("; to end that: fwguardctl resume\n")
    assert ctl("resume") == (0, "resumed: drift is repaired again, unless on_drift is report\n", "")


@pytest.mark.parametrize(
    "argv",
    [["status"], ["reload"], ["confirm"], ["rollback"], ["history"], ["show", "1"], ["open"], ["drift"],
     ["pause", "15m"], ["resume"]],
    ids=" ".join,
)  # fmt: skip
def test_json_is_the_result_and_nothing_else(ctl: Ctl, canned: Canned, argv: list[str]) -> None:
    """With --json, the result is one document on standard output, as the daemon gave it, unknown keys included."""
    given = canned.results[argv[0]]
    assert not isinstance(given, Exception)
    canned.results[argv[0]] = {**given, "new": "in a later version"}
    _, out, errors = ctl(*argv, "--json")
    assert json.loads(out) == {**given, "new": "in a later version"}
    assert errors == ""


def test_nothing_from_the_daemon_moves_the_cursor(ctl: Ctl, canned: Canned) -> None:
    """File names, rule text and causes may be hostile; control characters are printed escaped."""
    evil = "\x1b[2J\r\u202e"
    canned.results["history"] = {
        "revisions": [{**HISTORY["revisions"][0], "cause": evil, "by": evil}],
        "damaged": [evil],
    }
    canned.results["show"] = {
        **SHOWN, "cause": evil, "files": [{"path": evil, "text": evil}], "texts": {evil: evil},
    }  # fmt: skip
    canned.results["drift"] = {"count": 1, "differences": [evil]}
    canned.results["reload"] = {**REFUSED, "findings": [{**FINDING, "file": evil, "hint": evil}], "sentence": evil}
    canned.results["open"] = RequestError(Code.FAILED, evil)
    for argv in (["history"], ["show", "1"], ["drift"], ["reload"], ["open"]):
        _, out, errors = ctl(*argv)
        assert all(line.isprintable() for line in (out + errors).splitlines())
        assert "\\x1b[2J" in out + errors


def test_colours_are_for_terminals(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a terminal gets colours, and only if NO_COLOR is not set."""
    assert "\x1b" not in ctl("status")[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32min-force: revision 41" in ctl("status")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in ctl("status")[1]


@pytest.mark.parametrize(
    ("code", "exit_code"), [(code, 4 if code is Code.NOT_PERMITTED else 5) for code in Code], ids=list(Code)
)
def test_a_refusal_is_printed_with_its_code(ctl: Ctl, canned: Canned, code: Code, exit_code: int) -> None:
    """What the daemon refuses goes to standard error, as one sentence; a lack of permission has its own code."""
    canned.results["show"] = RequestError(code, "there is no revision 99")
    ended, out, errors = ctl("show", "99", "--json")
    assert (ended, out) == (exit_code, "")
    assert errors.startswith("fwguardctl: there is no revision 99")


def test_an_answer_of_another_version_raises_no_traceback(ctl: Ctl, canned: Canned) -> None:
    """A result without the keys that this version needs is reported as such, and --json prints it."""
    canned.results["status"] = {"version": "9"}
    code, out, errors = ctl("status")
    assert (code, out) == (5, "")
    assert "does not have the expected form (KeyError(" in errors
    assert ctl("status", "--json") == (0, '{"version": "9"}\n', "")


def test_without_a_daemon_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No socket, or one that nobody serves, ends with 3 and a command to look further."""
    path = tmp_path / "control.sock"
    for _ in range(2):
        assert daemon_verbs.run(parse("status", "--socket", str(path))) == 3
        out, errors = capsys.readouterr()
        assert out == ""
        assert errors.startswith(f"fwguardctl: fwguardd is not running, or its control socket is not {path}; ")
        assert errors.endswith("see: systemctl status fwguardd\n")
        with socket.socket(socket.AF_UNIX) as dead:
            if not path.exists():
                dead.bind(str(path))


@pytest.mark.root
def test_without_permission_it_ends_with_4(socket_path: Path) -> None:
    """A user who may not connect learns who may."""
    let_others_enter(socket_path.parent)
    script = (
        "import os, pathlib, sys; from fwguardd.control.client import ask; "
        f"os.setuid({NOBODY}); ask(pathlib.Path(sys.argv[1]), 'status')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(socket_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    advice = "run it as root, or, for a verb that only reads, as a member of the group fwguard"
    message = f"no permission to open {socket_path}: {advice}"
    assert ended.stderr.splitlines()[-1] == f"fwguardd.control.client.ControlNotPermittedError: {message}"


def test_the_socket_is_in_the_runtime_directory(
    socket_path: Path, canned: Canned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --socket, it is the one in the runtime directory of the settings."""
    config = tmp_path / "fwguardd.yaml"
    config.write_text(f"runtime_dir: {socket_path.parent}\n")
    assert daemon_verbs.run(parse("drift", "--config", str(config))) == 1
    assert canned.asked == [("drift", {})]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "argv",
    [["reload", "--confirm", "60"], ["reload", "--confirm", "0.5s"], ["pause"], ["pause", "25h"], ["pause", "soon"],
     ["show"], ["show", "0"], ["show", "-1"], ["show", "x"], ["rollback", "1.5"], ["show", "9" * 5000],
     ["history", "--limit", "0"], ["status", "now"], ["status", "--verbose"]],
    ids=lambda argv: " ".join(argv)[:30],
)  # fmt: skip
def test_wrong_usage_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong arguments are reported before a request is sent."""
    with pytest.raises(SystemExit) as ended:
        parse(*argv)
    assert ended.value.code == 2
    assert "usage: fwguardctl" in capsys.readouterr().err


@pytest.mark.root
def test_a_late_answer_is_not_waited_for(tmp_path: Path) -> None:
    """A daemon that does not answer in time counts as unreachable, and the message says that the verb may continue."""

    async def sleep(request: Request, caller: Caller) -> Mapping[str, Any]:  # noqa: ARG001
        await asyncio.sleep(3600)
        return {}

    with (
        Serving(tmp_path / "control.sock", sleep, limits=ServerLimits(verbs_end_within=0.1)) as serving,
        pytest.raises(DaemonUnreachableError, match="may still be"),
    ):
        ask(serving.path, "reload", {}, timeout=0.1)


def test_a_busy_daemon_is_a_refusal(tmp_path: Path, canned: Canned) -> None:
    """A daemon that has no place left answers before it reads the request, and the client gets that answer."""
    with (
        Serving(tmp_path / "control.sock", canned, limits=ServerLimits(clients=0)) as serving,
        pytest.raises(RequestRefusedError) as refusal,
    ):
        ask(serving.path, "status")
    assert refusal.value.code is Code.BUSY


def test_an_opening_for_a_time_is_printed(ctl: Ctl, canned: Canned) -> None:
    """When it is closed, what comes back, and what closes it at once; that it cannot be confirmed is not suggested."""
    pending = {**PENDING, "back_to": 41, "seconds_left": 900.0, "opening": True}
    canned.results["open"] = {**APPLIED, "pending": pending}
    code, out, _ = ctl("open", "--for", "15m")
    assert code == 0
    assert out.splitlines()[-2:] == [
        "the firewall is closed by itself in 15 min; revision 41 comes back",
        "to close it now: fwguardctl reload",
    ]
    canned.results["status"] = {**STATUS, "pending": pending}
    assert (
        "pending   the firewall is closed by itself in 15 min; revision 41 comes back" in ctl("status")[1].splitlines()
    )


def test_refused_settings_are_shown_until_they_are_corrected(ctl: Ctl, canned: Canned) -> None:
    """Status shows since when, why, and what to do; a reload that is refused for them has exit code 1."""
    settings = {"state": "refused", "since": 1_780_000_000.0, "message": "/etc/fwguardd.yaml:3: error: no such setting"}
    canned.results["status"] = {**STATUS, "settings": settings}
    (line,) = (line for line in ctl("status")[1].splitlines() if line.startswith("settings"))
    assert "refused since 2026-05-28" in line
    assert "/etc/fwguardd.yaml:3: error: no such setting; correct them and run: fwguardctl reload" in line
    canned.results["reload"] = {**APPLIED, "outcome": "refused", "changes": 0, "reason": settings["message"]}
    code, out, _ = ctl("reload")
    assert (code, "error: no such setting" in out) == (1, True)


def test_history_has_the_files_that_changed(ctl: Ctl, canned: Canned) -> None:
    """Below a revision, by their names, with a sign for how they changed."""
    changes = [
        {"file": "/etc/fwguard.d/10-base.rules", "change": "changed", "owner": "root"},
        {"file": "/etc/fwguard.d/20-web.rules", "change": "added", "owner": "root"},
        {"file": "/etc/fwguard.d/30-old.rules", "change": "removed", "owner": ""},
    ]
    revisions = [{**HISTORY["revisions"][0], "changes": changes}]
    canned.results["history"] = {"revisions": revisions, "damaged": []}
    assert ctl("history")[1].splitlines()[2].split() == ["~10-base.rules", "+20-web.rules", "-30-old.rules"]
