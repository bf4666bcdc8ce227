"""`packaging/demo`, run as a person would: it shows every step, fails when one does not happen, and leaves no trace."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.settings import Settings
from tests.scale import sampled

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.kernel_log

ROOT = Path(__file__).resolve().parents[2]
SYSCTL = Path("/proc/sys/net/netfilter/nf_log_all_netns")
LONGEST = 180.0
"""Seconds that one run may take on a busy machine; it takes 6 on an idle one."""

STEPS = (
    "1. fwguardd starts, and its rules are in force",
    "2. The peer connects: ports 22 and 80 are allowed, port 23 is not",
    "3. Each denied packet is an event",
    "4. A new file opens port 8080",
    "5. A mistake in that file changes nothing",
    "6. Another program flushes a chain",
    "7. Packets through the rules say why a port is closed, and which ones are open",
    "8. fwguardd stops, and the rules stay loaded",
)
THE_END = "The firewall of this machine was not changed."


@dataclass(frozen=True)
class Run:
    """A run of the demo that has ended: its exit code, what it said, what it left behind."""

    code: int
    stdout: str
    stderr: str
    traces: list[str]


class Demo:
    """A running demo, its temporary files in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, checkout: Path = ROOT, stdin: str = "") -> None:
        self._folder = folder / "tmp"
        self._folder.mkdir()
        self._log_for_all = SYSCTL.read_text(encoding="ascii")
        given, self._stdout, self._stderr = (folder / name for name in ("stdin", "stdout", "stderr"))
        given.write_text(stdin, encoding="utf-8")
        with given.open("rb") as source, self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                [checkout / "packaging" / "demo", *arguments],
                stdin=source,
                stdout=out,
                stderr=err,
                env={**os.environ, "TMPDIR": str(self._folder)},
            )

    def wait_for(self, text: str) -> None:
        """Return as soon as it has said this."""
        deadline = time.monotonic() + LONGEST
        while text not in self._stdout.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline, f"the demo never said {text!r}"
            assert self._process.poll() is None, f"the demo ended before it said {text!r}"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def finish(self) -> Run:
        """Wait for its end."""
        try:
            code = self._process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            # It cleans up on SIGTERM, which SIGKILL would not let it do.
            self._process.terminate()
            self._process.wait(LONGEST)
            raise
        stdout, stderr = (path.read_text(encoding="utf-8") for path in (self._stdout, self._stderr))
        return Run(code, stdout, stderr, self._traces())

    def _traces(self) -> list[str]:
        """Everything of this run that is still there."""
        traces = [str(path) for path in self._folder.iterdir()]
        traces += [str(path) for path in Path("/run/netns").glob(f"fwdemo-*-{self._process.pid}")]
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
                if os.fsencode(self._folder) in command:
                    traces.append(f"process {entry.name}: {command!r}")
        if SYSCTL.read_text(encoding="ascii") != self._log_for_all:
            traces.append(f"{SYSCTL} was {self._log_for_all!r}")
        return traces


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of all that the demo uses, to break something in."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "fwguardd", copy / "fwguardd")  # With the compiled modules: each start is fast.
    shutil.copytree(ROOT / "etc", copy / "etc")
    (copy / "packaging").mkdir()
    shutil.copy(ROOT / "packaging" / "demo", copy / "packaging" / "demo")
    return copy


def test_every_step_happens(tmp_path: Path) -> None:
    """Every step of the demo happens and shows what really went on, and nothing of it stays behind: here on one
    backend, and on the other where a shell follows, below."""
    _assert_every_step(Demo(tmp_path, "--backend", "legacy").finish(), "legacy")


def _assert_every_step(run: Run, backend: str) -> None:
    assert (run.code, run.stderr, run.traces) == (0, "", []), run.stdout
    lines = run.stdout.splitlines()
    assert [line for line in lines if line in STEPS] == list(STEPS)
    for key_line in (
        f"$ iptables-{backend}-save",
        "-A INPUT -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
        "peer → 192.0.2.1 port 80: open",
        "peer → 192.0.2.1 port 23: silence",
        "peer → 2001:db8:f::1 port 80: open",
        "peer → 2001:db8:f::1 port 23: silence",
        "peer → 192.0.2.1 port 8080: silence",
        "peer → 192.0.2.1 port 8080: open",
    ):
        assert f"     {key_line}" in lines
    for key_words in (
        "→ 192.0.2.1:23 in eth0 (99-log.rules:4) [denied]",
        "→ [2001:db8:f::1]:23 in eth0 (99-log.rules:4) [denied]",
        "/fwguard.d/50-app.rules:3: error: ",
        "[rules.rejected]",
        "[drift.detected]",
        "[drift.repaired]",
        "[daemon.stopping]",
    ):
        assert key_words in run.stdout
    assert lines[-1].endswith(THE_END)


def test_the_demo_logs_with_prefixes_of_its_own() -> None:
    """No rule of the demo keeps a log prefix of the shipped rules, so a daemon on the host does not take the demo's
    packets for packets of its host."""
    script = (ROOT / "packaging" / "demo").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    sed -i (.*) \"\$work\"/fwguard\.d/\*$", script, re.MULTILINE)
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "etc" / "fwguard.d").iterdir())
    done = subprocess.run(["sed", *shlex.split(command)], input=rules, capture_output=True, text=True, check=True)
    shipped, used = (set(re.findall('--log-prefix "([^"]*)"', text)) for text in (rules, done.stdout))
    assert shipped == {watched.prefix for watched in Settings().prefixes}
    assert len(used) == len(shipped)
    for prefix in used:
        assert f'prefix: "{prefix}"' in script
        assert not prefix.startswith(tuple(shipped))


def _break_a_rule(rules: Path) -> None:
    with (rules / "99-log.rules").open("a", encoding="utf-8") as file:
        file.write("-A INPUT -j NO-SUCH-CHAIN\n")


def _close_the_web(rules: Path) -> None:
    (rules / "20-web.rules").unlink()


def _log_nothing(rules: Path) -> None:
    (rules / "99-log.rules").unlink()


@pytest.mark.parametrize(
    ("spoil", "step", "reason", "evidence"),
    [
        (_break_a_rule, "step 1 (", "fwguardd did not apply the rules", "/99-log.rules:7: error: "),
        (_close_the_web, "step 2 (", "connection to 192.0.2.1 port 80: expected open, got silence", "[rules.applied]"),
        (_log_nothing, "step 3 (", "no event for the denied IPv4 packet", "port 23: silence"),
    ],
    ids=["a broken rule", "a closed port", "no LOG rule"],
)
def test_a_step_that_does_not_happen_fails_the_demo(
    tmp_path: Path, checkout: Path, spoil: Callable[[Path], None], step: str, reason: str, evidence: str
) -> None:
    """The demo checks what it shows: a step that does not happen ends it with code 1, named, and all is cleaned up."""
    spoil(checkout / "etc" / "fwguard.d")
    run = Demo(tmp_path, checkout=checkout).finish()
    assert (run.code, run.traces) == (1, []), run.stdout
    assert step in run.stderr
    assert reason in run.stderr
    assert evidence in run.stdout
    assert THE_END not in run.stdout


@pytest.mark.long
def test_an_interrupted_demo_cleans_up(tmp_path: Path, seed: int) -> None:
    """Whenever it is asked to end, the demo takes away all that it made and puts back all that it changed."""
    for moment in sampled((STEPS[0], STEPS[1], STEPS[3], STEPS[5]), seed, 2):
        folder = tmp_path / moment[0]
        folder.mkdir()
        demo = Demo(folder)
        demo.wait_for(moment)
        demo.send(signal.SIGTERM)
        run = demo.finish()
        assert (run.code, run.traces) == (143, []), run.stdout
        assert run.stderr.endswith(": terminated\n")


def test_stay_leaves_a_shell_beside_a_running_daemon(tmp_path: Path) -> None:
    """With --stay a shell opens in the guarded namespace after all steps: fwguardctl works, a dropped file counts, exit
    ends it all."""
    typed = """
        fwguardctl check && echo "the rules are good"
        fwguardctl status
        echo '-A INPUT -p tcp --dport 23 -j ACCEPT' >60-mine.rules
        fwguardctl render --family 4 | grep -c -- '--dport 23 -j'
        peer connect 192.0.2.1 23 0.1 120
        exit 3
    """
    run = Demo(tmp_path, "--backend", "nft", "--stay", stdin=typed).finish()
    _assert_every_step(run, "nft")
    shell = run.stdout.partition("9. A shell in the protected namespace\n")[2].splitlines()
    assert "the rules are good" in shell
    assert any(line.startswith("state     in-force, compared at ") for line in shell)
    assert any(line.startswith("revision  3,") for line in shell)
    assert "1" in shell
    assert any(line.startswith("open ") for line in shell)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--backend", "pf"], ["--backend"]])
def test_wrong_usage_is_reported_and_does_nothing(tmp_path: Path, arguments: list[str]) -> None:
    """An argument that the demo does not know ends it with code 2 before it does anything."""
    run = Demo(tmp_path, *arguments).finish()
    assert (run.code, run.stdout, run.traces) == (2, "", [])
    assert run.stderr.startswith("packaging/demo: ")


def test_without_root_it_says_how() -> None:
    """An ordinary user learns what to do, and gets the help without being root."""
    # By descriptor, since an ordinary user may not even reach the folder.
    with (ROOT / "packaging" / "demo").open("rb") as script:

        def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
            become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            return subprocess.run(
                [*become, "bash", f"/dev/fd/{script.fileno()}", *arguments],
                pass_fds=[script.fileno()],
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )

        refused, helped = as_nobody(), as_nobody("--help")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "sudo packaging/demo" in refused.stderr
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith("Usage: packaging/demo")
