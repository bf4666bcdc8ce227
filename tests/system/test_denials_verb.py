"""fwguardctl denials as a command: each source, each form of output, each error."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd import events
from fwguardd.ctl.denials.event import from_entry
from fwguardd.denials.aggregation import Flow, FlowSummary
from fwguardd.denials.fields import denial_fields, notice_fields, summary_fields
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Meaning, Watched
from fwguardd.denials.scan import Scan
from fwguardd.denials.sentences import notice_sentence, sentence
from tests.system.journals import GrowingJournal, exported, write_journal
from tests.unit.emitted import check_fields
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "corpus" / "denials" / "kernel-lines.txt"
COMMAND = [sys.executable, "-m", "fwguardd.ctl.main", "denials"]
START = 1795390395_000000
DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
READER = LineReader([DENIED])
SYN = (
    "iptables denied: IN=eth0 OUT= MAC= SRC=203.0.113.9 DST=10.0.0.1 LEN=60 TOS=0x00 PREC=0x00 TTL=51 ID=4711 DF "
    "PROTO=TCP SPT=51234 DPT=23 WINDOW=64240 RES=0x00 SYN URGP=0 "
)
PING = SYN.partition("PROTO=")[0].replace("203.0.113.9", "198.51.100.7") + "PROTO=ICMP TYPE=8 CODE=0 ID=1 SEQ=2 "
KERN_LOG = f"""\
Nov 22 23:33:15 gate kernel: [   12.345678] {SYN}
Nov 22 23:33:16 gate kernel: [   13.345678] usb 1-1: new device
Nov 22 23:33:17 gate kernel: [   14.345678] {PING}
Nov 22 23:33:18 gate sshd[12]: {SYN}
Nov 22 23:33:19 gate kernel: [   15.345678] iptables denied: IN=\x1b[2J
"""

TABLE = r"""
TIME                 MEANING  IN → OUT  PROTOCOL           SOURCE             DESTINATION  RULE
2026-11-22 23:33:15  denied   eth0 →    tcp SYN            203.0.113.9:51234  10.0.0.1:23  denied
2026-11-22 23:33:17  denied   eth0 →    icmp echo-request  198.51.100.7       10.0.0.1     denied
2026-11-22 23:33:19  a kernel line has the prefix 'iptables denied: ' and an unknown form: iptables denied: IN=\x1b[2J
""".lstrip()


def denials(
    *words: str, text: str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    environment = {**os.environ, "TZ": "UTC", **(env or {})}
    return subprocess.run(
        [*COMMAND, *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        cwd=ROOT,
        env=environment,
        check=False,
    )


def shapes() -> list[Denial]:
    """Every packet of the corpus that is denied."""
    lines = (line.split("\t")[2] for line in CORPUS.read_text(encoding="ascii").splitlines())
    return [read for read in map(READER.read, lines) if isinstance(read, Denial)]


def reported(denial: Denial) -> dict[str, Any]:
    """The event that the daemon emits."""
    return {"event": "denied", "message": sentence(denial), "priority": 4, **denial_fields(denial), "line": denial.text}


SCAN = Scan("203.0.113.9", tuple(f"tcp/{port}" for port in (1, 2, 3, 10, 20, 9)), 1.5)
SUMMARY = FlowSummary(
    Flow("iptables denied: ", "eth0", "", "203.0.113.9", "10.0.0.1", "tcp", "23"), 120, 1795390300.25, 1795390395.5
)
NOTICES: list[dict[str, Any]] = [
    {"event": "denied.summary", "message": "120 more", **summary_fields(SUMMARY, DENIED), "rule": "/etc/9.rules:4"},
    {"event": "denials.scan", "message": notice_sentence(SCAN), **notice_fields(SCAN)},
    {"event": "denials.lost", "message": "3 kernel records were overwritten", "count": 3},
]
"""Events about many packets, and about what could not be read."""


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the corpus as events of the daemon, a summary, notices of a scan and of a loss when it was run by hand,
    two events that others made up, and one of another kind."""
    made = [
        exported(reported(denial), START + number, unit="fwguardd.service") for number, denial in enumerate(shapes())
    ]
    forged = {**reported(shapes()[0]), "src": "6.6.6.6"}
    made += [
        *(exported(event, START + 10**6, uid=0) for event in NOTICES),
        exported(forged, START + 10**6, uid=1000),
        exported(forged, START + 10**6, uid=1000, unit="user@1000.service"),
        exported({"event": "rules.applied", "message": "revision 2 is in force"}, START + 10**6),
    ]
    return write_journal(tmp_path_factory.mktemp("denials") / "journal", made)


@pytest.fixture
def kern_log(tmp_path: Path) -> Path:
    """Yesterday's log."""
    path = tmp_path / "kern.log"
    path.write_text(KERN_LOG, encoding="ascii")
    os.utime(path, (START / 1e6, START / 1e6))
    return path


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--by", "proto,dport", "--unique", "src", "--csv"],
         "proto,dport,packets,unique src\ntcp,tcp 23,1,1\nicmp,icmp echo-request,1,1\n"),
        (["--histogram", "1h", "--csv"], "time,packets\n2026-11-22 23:00,2\n"),
        (["--not", "proto=icmp", "--src", "203.0.113.0/24,::1", "--dport", "telnet", "--by", "src", "--csv"],
         "src,packets\n203.0.113.9,1\n"),
        (["--top", "1", "--csv"], "kind,key,packets\nsource,203.0.113.9,1\nport,tcp 23,1\nrule,denied,2\n"),
    ],
)  # fmt: skip
def test_questions_to_a_file(kern_log: Path, words: list[str], printed: str) -> None:
    """Counts of the packets that pass the filters, as CSV."""
    ended = denials("--read", str(kern_log), *words)
    assert (ended.returncode, ended.stdout) == (0, printed)


def test_questions_to_the_journal(journal: Path) -> None:
    """The same filters and counts for events of the daemon; a summary counts as its packets."""
    words = ("--journal-dir", str(journal), "--rule", "9.rules")
    assert denials(*words, "--by", "dst,dport", "--csv").stdout == "dst,dport,packets\n10.0.0.1,tcp 23,120\n"
    lines = denials(*words, "--format", "json-lines").stdout.splitlines()
    assert [json.loads(line)["count"] for line in lines] == [120]
    assert "120  " in denials(*words, "--histogram").stdout


def test_every_field_comes_back_from_the_journal(journal: Path) -> None:
    """Each shape of the corpus, written to a real journal, is read back with every field as it was; what anybody else
    wrote in the daemon's name is not."""
    done = denials("--json", "--journal-dir", str(journal))
    assert (done.returncode, done.stderr) == (0, "")
    *events, summary, scan, lost = json.loads(done.stdout)["denials"]
    assert len(events) == len(shapes()) > 300
    for event, denial in zip(events, shapes(), strict=True):
        expected = json.loads(json.dumps({**reported(denial), "host": "gate"}))
        del expected["priority"]
        del event["timestamp"]
        assert event == expected
    for event, notice in zip((summary, scan, lost), NOTICES, strict=True):
        assert {key: event[key] for key in notice} == json.loads(json.dumps(notice))


def test_the_fields_are_those_of_the_schema() -> None:
    """Every field of every shape of packet is in the schema, with its type; a value in the journal that should be a
    number and is not stays the text that it is."""
    for denial in shapes():
        check_fields(events.DENIED, denial_fields(denial))
    for notice in NOTICES:
        carried = {key: value for key, value in notice.items() if key not in {"event", "message"}}
        check_fields(events.ALL_EVENTS[notice["event"]], carried)
    event = from_entry({"FWGUARD_EVENT": "denied", "FWGUARD_SPT": "x"})
    assert event is not None
    assert event.fields == {"spt": "x"}


def test_filters_and_top_of_the_journal(journal: Path) -> None:
    """Filters are for packets; the top counts what they let through."""
    here = ("--journal-dir", str(journal))
    done = denials("--top", "1", "--json", "--src", "10.9.0.0/16", "--dport", "20-30", *here)
    wanted = [d for d in shapes() if (d.src or "").startswith("10.9.") and d.dpt is not None and 20 <= d.dpt <= 30]
    found = json.loads(done.stdout)
    assert (found["packets"], found["notes"]) == (len(wanted), {})
    found_more = json.loads(denials("--top", "1", "--json", "--src", "203.0.113.0/24", *here).stdout)
    assert found_more["packets"] == 120 + sum((d.src or "").startswith("203.0.113.") for d in shapes())
    assert found_more["top"]["rule"] == [{"key": "9.rules:4", "count": 120}]
    assert found_more["notes"] == {"denials.scan": 1}
    assert found["top"]["source"] == [{"key": "10.9.0.2", "count": sum(d.src == "10.9.0.2" for d in wanted)}]
    late = denials("--since", "2026-11-22 23:33:16", "--format", "ecs", *here)
    assert [json.loads(line)["event"]["action"] for line in late.stdout.splitlines()] == [
        "denied",
        "denials.scan",
        "denials.lost",
    ]
    none = denials("--src", "6.6.6.6", *here)
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "fwguardctl: the journal has no such denials\n")


def test_old_lines_as_a_table(kern_log: Path) -> None:
    """A file of yesterday becomes a table, and an account of its lines on standard error."""
    done = denials("--read", str(kern_log))
    assert done.returncode == 0
    assert done.stdout == TABLE
    counts = "2 parsed, 1 of unknown form, 1 not from the kernel, 1 without a watched prefix"
    assert done.stderr.splitlines() == [
        f"fwguardctl: {kern_log}: 5 lines: {counts}",
        "fwguardctl: ignored 1 line with a watched prefix but no sign that the kernel wrote it",
        "fwguardctl: the stamps have no year: 2026 was assumed, from the time of the last change of the file",
    ]


def test_old_lines_in_the_other_forms(kern_log: Path) -> None:
    """JSON is one document with the account in it, ECS a line for each event, and the top counts."""
    document = json.loads(denials("--read", str(kern_log), "--json", "--since", "2026-11-22").stdout)
    assert [event["event"] for event in document["denials"]] == ["denied", "denied", "denials.unparsed"]
    counts = {"lines": 5, "ours": 2, "unparsed": 1, "foreign": 1, "others": 1, "left_out": 0, "undated": 0}
    counts |= {"bare": 0, "relayed": 0, "lost": 0}
    found = {"other_prefixes": {}, "imitations": {}, "assumed_years": [2026]}
    assert document["read"] == {**counts, **found}
    lines = denials("--read", "-", "--format", "ecs", "--dport", "23", text=KERN_LOG).stdout.splitlines()
    assert [json.loads(line)["source"]["ip"] for line in lines] == ["203.0.113.9"]
    top = denials("--read", str(kern_log), "--top").stdout
    assert top.startswith("2 packets\n\nPACKETS         SOURCE\n      1  50.0%  203.0.113.9\n")


def test_only_the_newest(kern_log: Path, journal: Path) -> None:
    """-n leaves the newest events, of a file and of the journal."""
    whole = denials("--read", str(kern_log), "--format", "json-lines").stdout.splitlines()
    assert denials("--read", str(kern_log), "--format", "json-lines", "-n", "2").stdout.splitlines() == whole[-2:]
    command = ("--journal-dir", str(journal), "--format", "json-lines")
    kept = [json.loads(line) for line in denials(*command).stdout.splitlines()]
    assert [json.loads(line) for line in denials(*command, "-n", "3").stdout.splitlines()] == kept[-3:]
    assert denials("-n", "0").returncode == 2


def test_several_files_are_one_log(tmp_path: Path) -> None:
    """All files are read; the events come by their times, and one account counts all lines."""
    lines = KERN_LOG.splitlines(keepends=True)
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    first.write_text("".join(lines), encoding="ascii")
    second.write_text("".join(lines), encoding="ascii")
    one = json.loads(denials("--read", str(first), "--json").stdout)
    done = denials("--read", str(first), "--read", str(second), "--json")
    both = json.loads(done.stdout)
    times = [event["timestamp"] for event in both["denials"] if event["timestamp"]]
    assert len(both["denials"]) == 2 * len(one["denials"])
    assert times == sorted(times)
    assert both["read"]["lines"] == 2 * one["read"]["lines"]
    assert f"{first}, {second}: 10 lines: 4 parsed" in done.stderr


def test_a_prefix_can_have_a_meaning(tmp_path: Path) -> None:
    """What a rule has allowed is shown as allowed; other prefixes of the file are named, and --any-prefix shows all."""
    text = f"<4>[   12.345678] {SYN}\n<4>[   13.345678] {SYN.replace('iptables denied: ', '[UFW ALLOW] ')}\n"
    words = ("--read", "-", "--config", str(tmp_path / "missing.yaml"))
    done = denials(*words, "--prefix", "allowed=[UFW ALLOW] ", text=text)
    assert "allowed" in done.stdout
    assert "denied" not in done.stdout
    note = '1 line looks like a LOG line with another prefix: "iptables denied: " (1); try --prefix or --any-prefix'
    assert note in done.stderr
    everything = denials(*words, "--prefix", "iptables denied: ", "--any-prefix", "--json", text=text)
    meanings = [(event["meaning"], event["prefix"]) for event in json.loads(everything.stdout)["denials"]]
    assert meanings == [("denied", "iptables denied: "), ("logged", "[UFW ALLOW] ")]


def test_prefixes_of_the_command_line_need_no_settings(tmp_path: Path) -> None:
    """On a machine without settings a prefix is given with --prefix; the settings are not read."""
    text = "<4>[   12.345678] " + SYN.replace("iptables denied: ", "odd one ")
    words = ("--read", "-", "--json", "--config", str(tmp_path / "missing.yaml"))
    document = json.loads(denials(*words, "--prefix", "odd one ", text=text).stdout)
    assert [(event["name"], event["uptime"]) for event in document["denials"]] == [("odd one", 12.345678)]
    assert denials(*words, text=text).returncode == 5


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--src", "gurke"], 2, "'gurke' is neither an address nor a network"),
        (["--dport", "99999"], 2, "'99999' is neither a port from 0 to 65535 nor a range"),
        (["--read", "-", "--since", "gurke"], 2, "'gurke' is not a time that --read understands"),
        (["--read", "/dev/null", "-f"], 2, "tail -F FILE | fwguardctl denials -f --read -"),
        (["--read", "-", "--prefix", "x", "--prefix", "x"], 2, "watch the same prefix"),
        (["--prefix", "x"], 2, "--prefix needs --read"),
        (["--any-prefix"], 2, "--any-prefix needs --read"),
        (["--read", "/dev/null", "--read", "/does/not/exist"], 5, "/does/not/exist: No such file"),
        (["--top", "-f"], 2, "--top and -f exclude each other"),
        (["--top", "--format", "ecs"], 2, "use --top --json"),
        (["--read", "/does/not/exist"], 5, "/does/not/exist: No such file or directory"),
        (["--read", "/does/not/\x1b[2J"], 5, "/does/not/\\x1b[2J: No such file"),
        (["--read", "/etc"], 5, "/etc: Is a directory"),
        (["--journal-dir", "/does/not/exist"], 5, "/does/not/exist: Failed to open"),
        (["--since", "gurke", "--journal-dir", "/"], 2, "Failed to parse timestamp: gurke"),
    ],
)
def test_an_error_is_one_sentence(words: list[str], code: int, sentence: str) -> None:
    """Wrong usage is 2, a place that cannot be read 5; the message says what is wrong, and nothing is printed."""
    done = denials(*words, text="")
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_without_a_journal(tmp_path: Path) -> None:
    """Where there are no journal files, or not even journalctl, the error says what can be read instead."""
    (tmp_path / "empty").mkdir()
    for words, env in (["--journal-dir", str(tmp_path / "empty")], {}), ([], {"PATH": str(tmp_path)}):
        done = denials("--json", *words, env=env)
        assert (done.returncode, done.stdout) == (5, "")
        assert "for old kernel log lines: fwguardctl denials --read FILE" in done.stderr


def test_a_journal_that_this_user_may_not_read(journal: Path, tmp_path: Path) -> None:
    """The error says that it is not permitted, and who may read it."""
    copied = tmp_path / "journal"
    subprocess.run(["cp", "-r", str(journal), str(copied)], check=True)
    (copied / "remote.journal").chmod(0)
    # Not as another user, who might not be able to read the checkout: as root without root's way past the file mode.
    dropped = "--bounding-set=-dac_override,-dac_read_search"
    words = ["setpriv", dropped, *COMMAND, "--journal-dir", str(copied)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert "run it as root or in the group systemd-journal" in done.stderr


@pytest.fixture
def following(journal: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, following a journal in JSON."""
    words = [*COMMAND, "-f", "--json", "--journal-dir", str(journal)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process
        process.kill()


def test_following_prints_an_object_a_line_and_ends_on_an_interrupt(following: subprocess.Popen[str]) -> None:
    """It begins with the last ten events, each a line of its own as soon as it is there; Ctrl-C ends it quietly."""
    assert following.stdout is not None
    lines = [following.stdout.readline() for _ in range(10)]
    assert json.loads(lines[-1])["event"] == "denials.lost"
    following.send_signal(signal.SIGINT)
    _, complaint = following.communicate(timeout=LONGEST)
    assert (following.returncode, complaint) == (130, "")


def test_following_prints_what_comes(tmp_path: Path) -> None:
    """An event that is written while it follows is printed then, and not when a buffer is full."""
    (tmp_path / "journal").mkdir()
    with GrowingJournal(tmp_path / "journal") as growing:
        growing.entry("first", FWGUARD_EVENT="denied", FWGUARD_SRC="192.0.2.1", _UID="0")
        growing.wait()
        words = [*COMMAND, "-f", "--journal-dir", str(growing.directory)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("TIME ")
            assert "192.0.2.1" in process.stdout.readline()
            growing.entry("forged", FWGUARD_EVENT="denied", FWGUARD_SRC="6.6.6.6", _UID="1000")
            growing.entry("second", FWGUARD_EVENT="denied", FWGUARD_SRC="192.0.2.2", _UID="0")
            assert "192.0.2.2" in process.stdout.readline()
            process.kill()


def test_following_standard_input(tmp_path: Path) -> None:
    """What another program follows is printed line by line, and the account when it ends."""
    words = [*COMMAND, "-f", "--json", "--read", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=_anywhere()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in KERN_LOG.splitlines(keepends=True)[:1] * 3:
            process.stdin.write(line)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["src"] == "203.0.113.9"
        _, account = process.communicate(timeout=LONGEST)
    assert "standard input: 3 lines: 3 parsed" in account


def _anywhere() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("where", ["/dev/full", "closed"])
def test_an_answer_that_cannot_be_written(where: str, kern_log: Path) -> None:
    """A full disk and a closed standard output are errors of one line, without a traceback."""
    redirect = ">&-" if where == "closed" else f">{where}"
    command = f'exec "$@" {redirect}'
    words = ["sh", "-c", command, "sh", *COMMAND, "--read", str(kern_log)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST, cwd=ROOT, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("fwguardctl: ")
    assert "standard output" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_following_ends_when_nobody_reads_it(following: subprocess.Popen[str]) -> None:
    """A closed pipe ends it at once, though nothing new is denied, and without a traceback."""
    assert following.stdout is not None
    assert following.stderr is not None
    following.stdout.readline()
    following.stdout.close()
    assert following.wait(timeout=LONGEST) == 141
    assert following.stderr.read() == ""


def test_a_closed_pipe_ends_a_long_answer(tmp_path: Path) -> None:
    """`| head` gets its lines, and no traceback comes after them."""
    path = tmp_path / "kern.log"
    path.write_text(KERN_LOG * 20_000, encoding="ascii")
    words = [*COMMAND, "--read", str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("TIME")
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(timeout=LONGEST) == 141


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path) -> None:
    """Of a line that never ends only the beginning is kept, be it larger than the memory; it is one line."""
    path = tmp_path / "kern.log"
    with path.open("wb") as file:
        file.truncate(200 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + KERN_LOG.encode())
    measure = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    words = [sys.executable, "-c", measure, *COMMAND, "--read", str(path), "--top"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST, cwd=ROOT, check=True)
    assert "6 lines: 2 parsed" in done.stderr
    assert int(done.stdout.splitlines()[-1]) < 100_000


def test_colours_only_on_a_terminal(kern_log: Path) -> None:
    """On a terminal there are colours, unless NO_COLOR is set; the bytes of a log are escaped on it in any case."""
    for env, colours in ({}, True), ({"NO_COLOR": "1"}, False):
        outer, inner = pty.openpty()
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | env
        words = [*COMMAND, "--read", str(kern_log)]
        subprocess.run(
            words, stdout=inner, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment, timeout=LONGEST, check=True
        )
        os.close(inner)
        shown = os.read(outer, 65536)
        os.close(outer)
        assert (b"\x1b[33mdenied" in shown) is colours
        assert b"\x1b[2J" not in shown
        assert b"\\x1b[2J" in shown
