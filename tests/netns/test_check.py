"""fwguardctl check, diff and render: the result that a reload would have, for every user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def _ctl(*argv: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """fwguardctl, as root or as a user that is in no group of root's."""
    return subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", *argv],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
        user=user, group=user, extra_groups=[] if user else None,
    )  # fmt: skip


@pytest.fixture
def rules(public_folder: Path) -> Path:
    """A copy of the shipped rules that every user can read."""
    folder = public_folder / "rules"
    shutil.copytree(ROOT / "etc" / "fwguard.d", folder)
    folder.chmod(0o755)
    return folder


@pytest.mark.parametrize("user", [None, NOBODY], ids=["root", "an ordinary user"])
def test_the_shipped_rules_pass(rules: Path, backend: str, user: int | None) -> None:
    """The shipped rules pass the check on both backends, with and without privilege, without a warning."""
    ended = _ctl("check", "--rules-dir", str(rules), "--backend", backend, "--json", user=user)
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["ok"], document["errors"], document["warnings"]) == (0, True, 0, 0)
    assert document["rules"] == {"ipv4": 18, "ipv6": 34}


def test_all_mistakes_are_reported_with_their_places(rules: Path, backend: str) -> None:
    """Several mistakes in several files are reported at once, each with file and line; the exit code is 1."""
    (rules / "50-a.rules").write_text("# one\n-A INPUT -p tcp --dport 70000 -j ACCEPT\n-A INPUT -j NOWHERE\n")
    (rules / "60-b.rules").write_text("*nat\n-A PREROUTING -j MASQUERADE\n")
    ended = _ctl("check", str(rules), "--backend", backend)
    assert ended.returncode == 1
    heads = [line for line in ended.stdout.splitlines() if ": error: " in line]
    assert [line.split(": error: ")[0] for line in heads] == [
        f"{rules}/50-a.rules:2", f"{rules}/50-a.rules:3", f"{rules}/60-b.rules:2",
    ]  # fmt: skip
    assert [line.rsplit("[", 1)[1] for line in heads] == ["bad-port]", "undeclared-chain]", "refused-by-kernel]"]


FAILING_SAVE = """mount -t tmpfs none /usr/local/sbin
save=/usr/local/sbin/ip6tables-$1-save
printf '#!/bin/sh\\necho "Failed to list table names: Permission denied" >&2\\nexit 1\\n' >$save
chmod 755 $save
exec "$2" -m fwguardd.ctl.main check "$3" --backend "$1"
"""


def test_a_rehearsal_that_cannot_be_read_back_is_not_a_mistake_in_the_files(rules: Path, backend: str) -> None:
    """Where iptables-save fails after a load that succeeded, check says that and fails (5), without any finding."""
    argv = ["unshare", "--mount", "sh", "-ec", FAILING_SAVE, "sh", backend, sys.executable, str(rules)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert (ended.returncode, ended.stdout) == (5, ""), ended.stderr
    assert "the rehearsal could not be read back: Failed to list table names: Permission denied; " in ended.stderr


@pytest.mark.either_backend
def test_a_large_ruleset_passes_without_privilege(rules: Path, backend: str) -> None:
    """An ordinary user's rehearsal takes more rules than one transaction in a user namespace does, in both tables."""
    lines = "".join(f"-A INPUT -s 10.{n // 250}.{n % 250}.0/24 -p tcp --dport {n + 1} -j ACCEPT\n" for n in range(2000))
    (rules / "50-large.rules").write_text(lines)
    ended = _ctl("check", str(rules), "--backend", backend, "--json", user=NOBODY)
    assert json.loads(ended.stdout)["rules"]["ipv4"] == 2018


@pytest.mark.either_backend
def test_a_mistake_in_a_large_ruleset_is_found_without_privilege(rules: Path, backend: str) -> None:
    """Small commits do not change the reported place of a mistake."""
    lines = [f"-A INPUT -p tcp --dport {n + 1} -j ACCEPT" for n in range(600)]
    lines[512] = "-A INPUT -m owner --uid-owner 0 -j ACCEPT"
    (rules / "50-large.rules").write_text("\n".join(lines) + "\n")
    ended = _ctl("check", str(rules), "--backend", backend, "--json", user=NOBODY)
    (finding,) = [reported for reported in json.loads(ended.stdout)["findings"] if reported["severity"] == "error"]
    assert (finding["file"], finding["line"], finding["code"]) == (
        str(rules / "50-large.rules"),
        513,
        "refused-by-kernel",
    )


def test_the_first_twenty_refused_rules_are_listed(rules: Path, backend: str) -> None:
    """Of many bad lines twenty are listed, whether iptables names them or only the kernel does; then a finding says
    that there are more."""
    bad = {
        "bad-port": [f"-A INPUT -p tcp --dport {70000 + n} -j ACCEPT" for n in range(15)],
        "refused-by-kernel": [f"-A INPUT -m owner --uid-owner {n} -j ACCEPT" for n in range(15)],
    }
    good = [f"-A INPUT -p tcp --dport {n + 1000} -j ACCEPT" for n in range(30)]
    lines = [line for trio in zip(good, bad["bad-port"] + bad["refused-by-kernel"], strict=True) for line in trio]
    (rules / "50-bad.rules").write_text("\n".join(lines) + "\n")
    document = json.loads(_ctl("check", str(rules), "--backend", backend, "--json").stdout)
    *errors, last = [finding for finding in document["findings"] if finding["severity"] == "error"]
    assert last["code"] == "too-many-errors"
    assert len(errors) == 20
    assert all(finding["line"] % 2 == 0 for finding in errors)
    assert {finding["code"] for finding in errors} == {"bad-port", "refused-by-kernel"}
    assert len({finding["line"] for finding in errors}) == 20
    assert all(finding["text"] == lines[finding["line"] - 1] for finding in errors)


def test_a_name_that_cannot_be_resolved_is_reported(rules: Path, backend: str) -> None:
    """An unknown host, an unknown set and an unknown match are reported, each at its line."""
    text = (
        "-A INPUT -s no.such.host.invalid -j ACCEPT\n"
        "-A INPUT -m set --match-set nosuchset src -j ACCEPT\n"
        "-A INPUT -m nosuchmatch -j ACCEPT\n"
    )
    (rules / "50-bad.rules").write_text(text)
    document = json.loads(_ctl("check", str(rules), "--backend", backend, "--json").stdout)
    errors = {
        reported["line"]: reported["code"] for reported in document["findings"] if reported["severity"] == "error"
    }
    assert errors == {1: "unresolvable-name", 2: "unknown-set", 3: "unknown-match"}


@pytest.mark.either_backend
def test_diff_shows_what_a_reload_would_change(rules: Path, backend: str) -> None:
    """Before the load everything is added, after it nothing; a change by another program is shown alone."""
    document = json.loads(_ctl("diff", "--rules-dir", str(rules), "--backend", backend, "--json").stdout)
    lines = [line for change in document["changes"] for line in change["lines"]]
    assert {"sign": "+", "text": "-A INPUT -i lo -j ACCEPT", "file": f"{rules}/00-base.rules", "line": 11} in lines
    for family, program in (("4", "iptables"), ("6", "ip6tables")):
        text = _ctl("render", "--rules-dir", str(rules), "--family", family).stdout
        subprocess.run([f"{program}-{backend}-restore"], input=text, text=True, check=True)
    assert json.loads(_ctl("diff", "--rules-dir", str(rules), "--backend", backend, "--json").stdout)["changes"] == []
    subprocess.run([f"iptables-{backend}", "-A", "INPUT", "-s", "192.0.2.9/32", "-j", "DROP"], check=True)
    shown = _ctl("diff", "--rules-dir", str(rules), "--backend", backend).stdout
    assert "@@ ipv4 filter INPUT @@" in shown
    assert "- -A INPUT -s 192.0.2.9/32 -j DROP" in shown
    assert "1 chain would change: 0 added, 1 removed." in shown


def test_diff_without_root_names_the_reason(rules: Path, backend: str) -> None:
    """Only root may read the rules in the kernel: the message says so and what to run, with exit code 4."""
    ended = _ctl("diff", "--rules-dir", str(rules), "--backend", backend, user=NOBODY)
    assert (ended.returncode, ended.stdout) == (4, ""), ended.stderr
    assert ended.stderr == (
        "fwguardctl: diff compares the files with the rules in the kernel, and only root may read these; "
        "run it as root; to check the files alone, run: fwguardctl check\n"
    )


@pytest.mark.either_backend
def test_root_may_check_the_draft_of_another_user(rules: Path, tmp_path: Path, backend: str) -> None:
    """A path outside of the daemon's own directory may belong to any user. The daemon's own directory may not."""
    for path in (rules, *rules.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    (rules / "00-base.rules").chmod(0o664)
    config = tmp_path / "fwguardd.yaml"
    for own, codes in ((tmp_path / "other", []), (rules, ["untrusted-owner"])):
        config.write_text(f"rules_dir: {own}\n")
        ended = _ctl("check", str(rules), "--config", str(config), "--backend", backend, "--json")
        assert [finding["code"] for finding in json.loads(ended.stdout)["findings"]] == codes
        ended = _ctl("diff", "--rules-dir", str(rules), "--config", str(config), "--backend", backend, "--json")
        assert [finding["code"] for finding in json.loads(ended.stdout)["findings"]] == codes
    ended = _ctl("check", str(rules / "00-base.rules"), "--config", str(config), "--backend", backend, "--json")
    assert "untrusted-owner" in {finding["code"] for finding in json.loads(ended.stdout)["findings"]}


@pytest.mark.either_backend
def test_check_changes_nothing(rules: Path, backend: str, saved: Callable[[], dict[str, list[str]]]) -> None:
    """A check loads nothing into the namespace that it is run in."""
    before = saved()
    _ctl("check", str(rules), "--backend", backend)
    assert saved() == before


def test_the_rendered_text_loads(rules: Path, backend: str) -> None:
    """iptables-restore loads what render prints."""
    for family, program in (("4", "iptables"), ("6", "ip6tables")):
        ended = _ctl("render", "--rules-dir", str(rules), "--family", family)
        assert ended.returncode == 0
        subprocess.run([f"{program}-{backend}-restore"], input=ended.stdout, text=True, check=True)


def test_wrong_usage_ends_with_2() -> None:
    """An unknown verb or option is wrong usage."""
    assert _ctl("chekc").returncode == 2
    assert _ctl("render", "--family", "5").returncode == 2


def test_an_empty_directory_is_reported_by_its_name(tmp_path: Path) -> None:
    """What is the matter with no file is the matter with the directory."""
    ended = _ctl("check", str(tmp_path))
    assert ended.returncode == 1
    assert ended.stdout.startswith(f"{tmp_path}: error: there is no rule file [no-rules]\n")


def test_a_directory_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    """A missing rules directory is reported like any other mistake, with a hint."""
    ended = _ctl("check", "--rules-dir", str(tmp_path / "none"))
    assert ended.returncode == 1
    assert "the rules directory cannot be read: No such file or directory" in ended.stdout
    assert "[no-directory]" in ended.stdout


_WITHOUT_UNSHARE = """
import ctypes, platform, struct, sys
number = {"x86_64": 272, "aarch64": 97}[platform.machine()]
code = b"".join(struct.pack("HBBI", *step) for step in (
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)
))
program = ctypes.create_string_buffer(code)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(4, ctypes.addressof(program))), 0, 0) == 0
from fwguardd.ctl.main import main
sys.exit(main())
"""
"""fwguardctl under a seccomp filter that refuses unshare(2), as in many containers."""


@pytest.mark.parametrize("forbidden", ["max_net_namespaces", "max_user_namespaces", "seccomp"])
@pytest.mark.either_backend
def test_without_namespaces_check_names_the_reason_and_the_way_without_them(rules: Path, forbidden: str) -> None:
    """In a container that permits no namespace the check fails with the kernel's reason and names --static, which
    works there. Nothing else is printed."""
    program = [sys.executable, "-m", "fwguardd.ctl.main"]
    reason = f"No space left on device; user.{forbidden} is 0"
    if forbidden == "seccomp":
        program = ["unshare", "--user", "--map-root-user", sys.executable, "-c", _WITHOUT_UNSHARE]
        reason = "Operation not permitted"
    else:
        limit = f'echo 0 > /proc/sys/user/{forbidden}; exec "$@"'
        program = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh", *program]
    ended = {}
    for options in ((), ("--static",)):
        argv = [*program, "check", *options, "--rules-dir", str(rules)]
        ended[options] = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
    refused = ended[()]
    assert (refused.returncode, refused.stdout) == (5, "")
    assert refused.stderr.count("\n") == 1
    assert reason in refused.stderr
    assert refused.stderr.endswith("run: fwguardctl check --static\n")
    static = ended[("--static",)]
    assert (static.returncode, static.stderr) == (0, "")
    assert "not rehearsed" in static.stdout
