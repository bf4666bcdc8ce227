"""What carries a kernel line: every form of head is read, with its time and host, and marked if it was relayed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.ctl.denials.filters import Filters
from fwguardd.ctl.denials.log_files import LogFileReader
from fwguardd.ctl.denials.times import StampReader, to_usec
from fwguardd.denials.model import Meaning, Watched

if TYPE_CHECKING:
    from fwguardd.ctl.denials.event import Event

DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
IP = "LEN=60 TOS=0x00 PREC=0x00 TTL=54 ID=4711 DF "
PACKET = (
    "IN=eth0 OUT= MAC=00:11:22:33:44:55:66:77:88:99:aa:bb:08:00 SRC=203.0.113.9 DST=198.51.100.4 "
    f"{IP}PROTO=TCP SPT=47630 DPT=23 WINDOW=64240 RES=0x00 SYN URGP=0 "
)
LINE = f"iptables denied: {PACKET}"
WRITTEN = datetime(2026, 11, 23, 12, 0, 0)  # noqa: DTZ001 - local time is meant.
LOCAL: Final = to_usec(datetime(2026, 11, 22, 21, 14, 25))  # noqa: DTZ001 - as above.
MINUTE: Final = LOCAL - 25_000_000
SECOND_OF_NOVEMBER: Final = to_usec(datetime(2026, 11, 2, 21, 14, 25))  # noqa: DTZ001 - as above.
UTC_TIME: Final = to_usec(datetime(2026, 11, 22, 21, 14, 25, tzinfo=UTC))
CET: Final = UTC_TIME - 3_600_000_000


def run(*lines: str) -> tuple[list[Event], LogFileReader]:
    """The events of lines, and the reader with its account."""
    old = LogFileReader((DENIED,), Filters(), StampReader(WRITTEN))
    return list(old.events(line.encode("latin-1") for line in "\n".join(lines).split("\n"))), old


SYSLOG = "Nov 22 21:14:25 host kernel: "
DOCKER = {"log": f"{SYSLOG}{LINE}\n", "stream": "stderr", "time": "2026-11-22T21:14:25.123456789Z"}
DMESG_OBJECT = (
    '{\n   "dmesg": [\n      {\n         "pri": 4,\n         "time":    1.234567,\n         "msg": "'
    f'{LINE}"\n      }}\n   ]\n}}'
)
ENTRY = {
    "__CURSOR": "s=1",
    "__REALTIME_TIMESTAMP": str(UTC_TIME),
    "_TRANSPORT": "kernel",
    "SYSLOG_FACILITY": "0",
    "_HOSTNAME": "host",
    "MESSAGE": LINE,
}
EXPORT = "".join(f"{name}={value}\n" for name, value in ENTRY.items())
SIZED = EXPORT.replace(f"MESSAGE={LINE}", f"MESSAGE\n{len(LINE).to_bytes(8, 'little').decode('latin-1')}{LINE}")
VERBOSE = f"Sun 2026-11-22 21:14:25.000000 UTC [s=c0;i=1;b=b0;m=1;t={UTC_TIME:x};x=1]\n    " + EXPORT.removesuffix(
    "\n"
).replace("\n", "\n    ").replace("    __CURSOR=s=1\n", "").replace(f"    __REALTIME_TIMESTAMP={UTC_TIME}\n", "")
INDENTED = json.dumps(ENTRY, indent=8)

FORMS: Final = [
    # Records of /dev/kmsg.
    ("4,1234,1234567,-;", None, None, 1234567),
    ("4,1234,1234567,-,caller=T123;", None, None, 1234567),
    ("4,1234,1234567,c,caller=C0;", None, None, 1234567),
    ("kmsg.txt:12:4,1234,1234567,-;", None, None, 1234567),
    # dmesg.
    ("[    1.234567] ", None, None, 1234567),
    ("[    1.234567][    C0] ", None, None, 1234567),
    ("[    1.234567][ T1234] ", None, None, 1234567),
    ("[17748.074339][T12345] ", None, None, 17748074339),
    ("<4>[    1.234567] ", None, None, 1234567),
    ("<4>[    1.234567][    C0] ", None, None, 1234567),
    ("kern  :warn  : [    1.234567] ", None, None, 1234567),
    ("kern  :warn  : [    1.234567][    C1] ", None, None, 1234567),
    ("kern  :warn  : [Sun Nov 22 21:14:25 2026] ", LOCAL, None, None),
    ("kern  :warn  : ", None, None, None),
    ("<4>", None, None, None),
    ("[    1.234567 <    0.000123>] ", None, None, 1234567),
    ("[Sun Nov 22 21:14:25 2026] ", LOCAL, None, None),
    ("[Sun Nov 22 21:14:25 2026][    C0] ", LOCAL, None, None),
    ("[Sun Nov 22 21:14:25 2026 <    0.000123>] ", LOCAL, None, None),
    ("2026-11-22T21:14:25,123456+00:00 ", UTC_TIME + 123456, None, None),
    ("kern  :warn  : 2026-11-22T21:14:25,123456+00:00 ", UTC_TIME + 123456, None, None),
    ("[Nov22 21:14] ", MINUTE, None, None),
    ("[  +0.000123] ", None, None, None),
    ("\x1b[32m[    1.234567] \x1b[0m", None, None, 1234567),
    # Syslog text.
    (SYSLOG, LOCAL, "host", None),
    ("Nov 22 21:14:25 kernel: ", LOCAL, None, None),
    ("Nov 22 21:14:25 host kernel: [    1.234567] ", LOCAL, "host", 1234567),
    ("Nov 22 21:14:25 host kernel: [1.2] ", LOCAL, "host", 1200000),
    ("Nov 22 21:14:25 host kernel:[    1.234567] ", LOCAL, "host", 1234567),
    ("Nov 22 21:14:25 host kernel: [17748.074339][    C0] ", LOCAL, "host", 17748074339),
    ("Nov 22 21:14:25 host kernel: [17748.074339][ T123] ", LOCAL, "host", 17748074339),
    ("Nov 22 21:14:25 host kernel: [17748.074339] [ T123] ", LOCAL, "host", 17748074339),
    ("Nov 22 21:14:25 host kernel: [17748.074339]", LOCAL, "host", 17748074339),
    ("Nov 22 21:14:25 host kernel:", LOCAL, "host", None),
    ("Nov 22 21:14:25 host kernel: <4>", LOCAL, "host", None),
    ("Nov 22 21:14:25 host kernel: <4>[    1.234567] ", LOCAL, "host", 1234567),
    ("Nov 22 21:14:25.123 host kernel: ", LOCAL + 123000, "host", None),
    ("Nov 22 21:14:25.123456 host kernel: ", LOCAL + 123456, "host", None),
    ("Nov 22 21:14:25.123456789 host kernel: ", LOCAL + 123456, "host", None),
    ("Nov 22 21:14:25,123 host kernel: ", LOCAL + 123000, "host", None),
    ("Nov  2 21:14:25 host kernel: ", SECOND_OF_NOVEMBER, "host", None),
    ("Nov 2 21:14:25 host kernel: ", SECOND_OF_NOVEMBER, "host", None),
    ("Nov 02 21:14:25 host kernel: ", SECOND_OF_NOVEMBER, "host", None),
    ("Nov 22 2026 21:14:25 host kernel: ", LOCAL, "host", None),
    ("Nov 22, 2026 21:14:25 host kernel: ", LOCAL, "host", None),
    ("Nov 22 21:14:25 2026 host kernel: ", LOCAL, "host", None),
    ("2026 Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("22 Nov 2026 21:14:25 host kernel: ", LOCAL, "host", None),
    ("Nov 22 21:14:25 UTC host kernel: ", LOCAL, "host", None),
    ("Sun Nov 22 21:14:25 2026 host kernel: ", LOCAL, "host", None),
    ("Sun Nov 22 21:14:25 UTC 2026 host kernel: ", UTC_TIME, "host", None),
    ("2026-11-22T21:14:25+01:00 host kernel: ", CET, "host", None),
    ("2026-11-22T21:14:25.123456+01:00 host kernel: ", CET + 123456, "host", None),
    ("2026-11-22T21:14:25Z host kernel: [    1.234567] ", UTC_TIME, "host", 1234567),
    ("2026-11-22T21:14:25.123456789Z host kernel: ", UTC_TIME + 123456, "host", None),
    ("2026-11-22T21:14:25+0100 host kernel: ", CET, "host", None),
    ("2026-11-22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("2026-11-22 21:14:25.123 host kernel: ", LOCAL + 123000, "host", None),
    ("2026-11-22 21:14:25,123 host kernel: ", LOCAL + 123000, "host", None),
    ("2026-11-22 21:14:25 +01:00 host kernel: ", CET, "host", None),
    ("2026-11-22 21:14:25 UTC host kernel: ", UTC_TIME, "host", None),
    ("2026/11/22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("[2026-11-22 21:14:25] host kernel: ", LOCAL, "host", None),
    ("1795382065 host kernel: ", UTC_TIME, "host", None),
    ("1795382065.5 host kernel: ", UTC_TIME + 500000, "host", None),
    ("kernel: ", None, None, None),
    ("kernel: [    1.234567] ", None, None, 1234567),
    # Facility and level, before and behind the name of the host; BusyBox and OpenWrt.
    ("Nov 22 21:14:25 host kern.warn kernel: [1.2] ", LOCAL, "host", 1200000),
    ("Nov 22 21:14:25 host kern.warning kernel: ", LOCAL, "host", None),
    ("Nov 22 21:14:25 kern.warn host kernel: ", LOCAL, "host", None),
    ("Nov 22 21:14:25 kern.warn kernel: ", LOCAL, None, None),
    ("Nov 22 21:14:25 host kern.debug kernel: [    1.234567][    C0] ", LOCAL, "host", 1234567),
    ("Nov 22 21:14:25 [kern.warn] host kernel: ", LOCAL, "host", None),
    ("kern.warn: Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("Sun Nov 22 21:14:25 2026 kern.warn kernel: [1.2] ", LOCAL, None, 1200000),
    ("Sun Nov  2 21:14:25 2026 kern.warn kernel: [1.2] ", SECOND_OF_NOVEMBER, None, 1200000),
    ("Sun Nov 22 21:14:25 2026 [1795382065.123] kern.warn kernel: [1.2] ", LOCAL, None, 1200000),
    # Names and blanks in other spellings.
    ("Nov 22 21:14:25 host kernel[0]: [    1.234567] ", LOCAL, "host", 1234567),
    ("Nov 22 21:14:25 kernel[0]: ", LOCAL, None, None),
    ("2026-11-22T21:14:25Z host kernel[-]: ", UTC_TIME, "host", None),
    ("Nov 22 21:14:25 host kernel(0): ", LOCAL, "host", None),
    ("Nov 22 21:14:25 host kernel : ", LOCAL, "host", None),
    ("Nov 22 21:14:25 host  kernel: ", LOCAL, "host", None),
    ("Nov 22 21:14:25  host kernel: ", LOCAL, "host", None),
    ("Nov 22 21:14:25\thost\tkernel:\t", LOCAL, "host", None),
    ("Nov 22 21:14:25 host kern warning kernel: ", LOCAL, "host", None),
    ("Nov 22 21:14:25 host kern.4 kernel: ", LOCAL, "host", None),
    ("kern.warning, Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    # Dates as numbers, with the month first, and the day first where it cannot be a month or points follow.
    ("11/22/2026 21:14:25 host kernel: ", LOCAL, "host", None),
    ("11/22/26 21:14:25 host kernel: ", LOCAL, "host", None),
    ("11/22/2026, 09:14:25 PM host kernel: ", LOCAL, "host", None),
    ("<4>22/11/2026 21:14:25.5 host kernel: ", LOCAL + 500000, "host", None),
    ("22.11.2026 21:14:25 host kernel: ", LOCAL, "host", None),
    ("02.11.2026 21:14:25 host kernel: ", SECOND_OF_NOVEMBER, "host", None),
    ("11/02 21:14:25 host kernel: ", SECOND_OF_NOVEMBER, "host", None),
    ("20261122T211425Z host kernel: ", UTC_TIME, "host", None),
    ("20261122 211425 host kernel: ", LOCAL, "host", None),
    ("2026-11-22_21:14:25.12345 host kernel: ", LOCAL + 123450, "host", None),
    ("(2026-11-22 21:14:25) host kernel: ", LOCAL, "host", None),
    ("November 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("22-Nov 21:14:25 host kernel: ", LOCAL, "host", None),
    ("21:14:25 host kernel: ", None, None, None),
    # socklog and talosctl name the facility, and not the kernel.
    ("2026-11-22_21:14:25.12345 kern.warn: [    1.234567] ", LOCAL + 123450, None, 1234567),
    ("10.0.0.1: kern: warning: [2026-11-22T21:14:25.123456789Z]: ", UTC_TIME + 123456, "10.0.0.1", None),
    # Syslog as it goes over the network.
    ("<4>Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("<0>Nov 22 21:14:25 host kernel: [    1.234567] ", LOCAL, "host", 1234567),
    ("<4>Nov 22 21:14:25 kernel: ", LOCAL, None, None),
    ("<4>kernel: ", None, None, None),
    ("<4>2026-11-22T21:14:25+01:00 host kernel: ", CET, "host", None),
    ("<4>1 2026-11-22T21:14:25+01:00 host kernel - - - [1.2] ", CET, "host", 1200000),
    ("1 2026-11-22T21:14:25+01:00 host kernel - - - [1.2] ", CET, "host", 1200000),
    ("<4>1 2026-11-22T21:14:25.123456Z host kernel - - - ", UTC_TIME + 123456, "host", None),
    ('<4>1 2026-11-22T21:14:25Z host kernel - - [timeQuality tzKnown="1" isSynced="1"] ', UTC_TIME, "host", None),
    ("<4>1 2026-11-22T21:14:25Z host kernel - - - \xef\xbb\xbf", UTC_TIME, "host", None),
    ("<4>1 - - kernel - - - ", None, None, None),
    ("<4>1 2026-11-22T21:14:25Z host kernel - - ", UTC_TIME, "host", None),
    ("<4>1 2026-11-22T21:14:25Z host kernel - - [    1.234567] ", UTC_TIME, "host", 1234567),
    ("<4>1 2026-11-22T21:14:25Z host - - - - kernel: ", UTC_TIME, "host", None),
    ("2026-11-22T21:14:25Z host kernel - - - ", UTC_TIME, "host", None),
    ("Nov 22 21:14:26 relay 1 2026-11-22T21:14:25Z host kernel - - - ", UTC_TIME, "host", None),
    ("78 <4>1 2026-11-22T21:14:25Z host kernel - - - ", UTC_TIME, "host", None),
    ("Nov 22 21:14:26 relay Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("2026-11-22T21:14:26+00:00 relay <4>Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    # journalctl.
    ("Sun 2026-11-22 21:14:25 UTC host kernel: ", UTC_TIME, "host", None),
    ("Sun 2026-11-22 21:14:25.123456 CET host kernel: ", LOCAL + 123456, "host", None),
    ("Sun 2026-11-22 21:14:25 UTC kernel: ", UTC_TIME, None, None),
    ("Sun 2026-11-22 21:14:25.123456 UTC host kernel: ", UTC_TIME + 123456, "host", None),
    ("1795382065.123456 host kernel: ", UTC_TIME + 123456, "host", None),
    ("[    1.234567] host kernel: ", None, "host", 1234567),
    ("[    1.234567 <    0.000123 >] host kernel: ", None, "host", 1234567),
    ("", None, None, None),
    # What tools put before a line.
    ("\xef\xbb\xbfNov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("/var/log/kern.log:Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("/var/log/kern.log:123:Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("/var/log/kern.log-123-Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("/var/log/kern.log-Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("kern.log.1:123:2026-11-22T21:14:25+01:00 host kernel: ", CET, "host", None),
    ("messages:123:Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("(standard input):123:Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("(standard input):Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("kern log.txt:123:Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("123:Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("123:[    1.234567] ", None, None, 1234567),
    ("123:", None, None, None),
    ("/tmp/dmesg.txt:123:", None, None, None),
    ("   123\tNov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    # Logs of containers.
    ("2026-11-22T21:14:25.123456789Z stderr F Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("2026-11-22T21:14:25.123456789Z stdout F [    1.234567] ", UTC_TIME + 123456, None, 1234567),
    ("2026-11-22T21:14:25.123456789+01:00 stderr F ", CET + 123456, None, None),
    ("2026-11-22T21:14:25.123456789Z Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("2026-11-22T21:14:25.123456789Z [    1.234567] ", UTC_TIME + 123456, None, 1234567),
    ("[pod/logs-x/syslog] Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("2026-11-22T21:14:25.12345Z stderr F Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("2026-11-22T21:14:25.123Z stderr F ", UTC_TIME + 123000, None, None),
    ("2026-11-22T21:14:25.123Z Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("2026-11-22T21:14:25.123Z [    1.234567] ", UTC_TIME + 123000, None, 1234567),
    ("syslog-1  | Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("syslog-abc12 syslog Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("gate: Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("C:\\logs\\kern.log:12:Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
]
DOUBLED: Final = [
    "Nov 22 21:14:25 host kernel:  ",
    "Nov 22 21:14:25 host kernel: kernel: ",
    "Nov 22 21:14:25 host kernel: [    1.234567] [    1.234567] ",
    "Nov 22 21:14:25 host kernel: [    1.234567] <4>",
    "[    1.234567]  ",
]
RELAYED: Final = [
    ("<12>Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("<12>Nov 22 21:14:25 host kernel: [    1.234567] ", LOCAL, "host", 1234567),
    ("<134>Nov 22 21:14:25 host kernel: ", LOCAL, "host", None),
    ("<12>1 2026-11-22T21:14:25+01:00 host kernel - - - ", CET, "host", None),
    ("<12>kernel: ", None, None, None),
    ("Nov 22 21:14:25 host user.warn kernel: ", LOCAL, "host", None),
    ("Nov 22 21:14:25 host local0.notice kernel: ", LOCAL, "host", None),
    ("Sun Nov 22 21:14:25 2026 daemon.info kernel: ", LOCAL, None, None),
]
BLOCKS: Final = {
    "export": (EXPORT, UTC_TIME, "host", None),
    "export-sized": (SIZED, UTC_TIME, "host", None),
    "json": (json.dumps(ENTRY), UTC_TIME, "host", None),
    "json-pretty": (INDENTED, UTC_TIME, "host", None),
    "json-seq": (f"\x1e{json.dumps(ENTRY)}", UTC_TIME, "host", None),
    "json-sse": (f"data: {json.dumps(ENTRY)}\n", UTC_TIME, "host", None),
    "verbose": (VERBOSE, UTC_TIME, "host", None),
    "dmesg-json": (DMESG_OBJECT, None, None, 1234567),
    "docker-json": (json.dumps(DOCKER), LOCAL, "host", None),
    "grep-json": (f"kernel.json:12:{json.dumps(ENTRY)}", UTC_TIME, "host", None),
}


@pytest.mark.parametrize(("head", "realtime", "host", "uptime"), FORMS)
def test_every_head_is_read(head: str, realtime: int | None, host: str | None, uptime: int | None) -> None:
    """A line of the kernel is read whatever carried it, with the time and the host that it names."""
    events, _ = run(head + LINE)
    assert [(event.name, event.fields["line"]) for event in events] == [("denied", LINE)]
    assert (events[0].realtime, events[0].host, events[0].uptime) == (realtime, host, uptime)
    assert "relayed" not in events[0].fields


@pytest.mark.parametrize(("head", "realtime", "host", "uptime"), RELAYED)
def test_a_relayed_line_is_marked(head: str, realtime: int | None, host: str | None, uptime: int | None) -> None:
    """A line of the kernel under the facility of another program is read, and marked as relayed."""
    events, old = run(head + LINE)
    assert [(event.name, event.fields["line"], event.fields["relayed"]) for event in events] == [("denied", LINE, True)]
    assert (events[0].realtime, events[0].host, events[0].uptime) == (realtime, host, uptime)
    assert old.counts.relayed == 1


@pytest.mark.parametrize("head", DOUBLED)
def test_what_a_log_daemon_wrote_twice_is_passed_over(head: str) -> None:
    """Blanks, a second name and a second stamp behind the name of the kernel are not part of the text."""
    events, _ = run(head + LINE)
    assert [(event.name, event.fields["line"]) for event in events] == [("denied", LINE)]
    assert run(f"{head}usb 1-1: new device OUT=")[0] == []


SHIPPED: Final = [
    {"time": "2026-11-22 22:14:25 +0100", "host": "host", "ident": "kernel", "message": LINE},
    {"date": UTC_TIME / 1e6, "pri": "4", "host": "host", "ident": "kernel", "message": LINE},
    {"date": UTC_TIME / 1e6, "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "_HOSTNAME": "host", "MESSAGE": LINE},
    {"host": "host", "message": LINE, "_TRANSPORT": "kernel", "timestamp": "2026-11-22T21:14:25Z"},
    {"appname": "kernel", "facility": "kern", "hostname": "host", "message": LINE, "timestamp": "2026-11-22T21:14:25Z"},
    {"timestamp": "2026-11-22T21:14:25Z", "host": "host", "syslogtag": "kernel:", "message": f" {LINE}"},
    {"msg": f" {LINE}", "timereported": "2026-11-22T21:14:25Z", "hostname": "host", "programname": "kernel"},
    {"@timestamp": "2026-11-22T21:14:25Z", "program": "kernel", "facility": 0, "logsource": "host", "message": LINE},
    {"@timestamp": "2026-11-22T21:14:25Z", "host": {"name": "host"}, "process": {"name": "kernel"}, "message": LINE},
    {"Facility": "kern", "Computer": "host", "SyslogMessage": LINE, "ProcessName": "kernel",
     "TimeGenerated": "2026-11-22T21:14:25Z"},
    {"jsonPayload": {"message": LINE, "ident": "kernel", "host": "host"}, "timestamp": "2026-11-22T21:14:25Z"},
    {"version": "1.1", "host": "host", "short_message": f"{SYSLOG}{LINE}", "timestamp": UTC_TIME / 1e6},
    {"timestamp": UTC_TIME // 1000, "MESSAGE": f"[1.2] {LINE}", "PROGRAM": "kernel", "HOST": "host"},
    {"_source": {"@timestamp": "2026-11-22T21:14:25Z", "message": f"Nov 22 21:14:25 host kernel: {LINE}"}},
    {"result": {"_raw": f"2026-11-22T21:14:25Z host kernel: {LINE}"}},
    {"message": f"{SYSLOG}{LINE}"},
]  # fmt: skip


@pytest.mark.parametrize("entry", SHIPPED)
def test_the_objects_of_log_shippers_are_read(entry: dict[str, object]) -> None:
    """The names of the text, the program, the host and the time differ from shipper to shipper."""
    events, old = run(json.dumps(entry))
    assert [(event.name, event.fields["line"], event.host) for event in events] == [("denied", LINE, "host")]
    assert events[0].realtime in {UTC_TIME, LOCAL}
    assert old.counts.bare == 0


@pytest.mark.parametrize(
    "entry",
    [
        {"ident": "sshd", "message": LINE},
        {"appname": "sshd", "facility": "kern", "message": f"{SYSLOG}{LINE}"},
        {"_TRANSPORT": "syslog", "timestamp": "2026-11-22T21:14:25Z", "message": LINE},
        {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "1", "message": LINE},
    ],
)
def test_an_object_that_names_another_program_is_not_read(entry: dict[str, object]) -> None:
    """What the object says beside the text decides whose line it is."""
    events, old = run(json.dumps(entry))
    assert (events, old.counts.foreign) == ([], 1)


@pytest.mark.parametrize("form", BLOCKS)
def test_entries_of_several_lines_are_read(form: str) -> None:
    """The forms of journalctl and dmesg that are objects or blocks of lines are read as entries."""
    text, realtime, host, uptime = BLOCKS[form]
    events, _ = run(text)
    assert [(event.name, event.fields["line"]) for event in events] == [("denied", LINE)]
    assert (events[0].realtime, events[0].host, events[0].uptime) == (realtime, host, uptime)


@pytest.mark.parametrize(
    "head",
    [
        "Nov 22 21:14:25 host sshd[12]: ",
        "Nov 22 21:14:25 host sshd[12]: kernel: ",
        "Nov 22 21:14:25 host sshd[12]:\tkernel[0]: ",
        "Nov 22 21:14:25 host kernel[12]: ",
        "11/22/2026 21:14:25 host sshd: kernel: ",
        "Nov 22 21:14:25 host sshd: kern.warn: ",
        "Nov 22 21:14:25 host kern.warn sshd: ",
        "<12>Nov 22 21:14:25 host sshd: ",
        "<4>1 2026-11-22T21:14:25Z host sshd - - - ",
        "user  :warn  : [    1.234567] ",
        "user  :warn  : ",
        "<12>[    1.234567] ",
        "<12>",
        "12,1234,1234567,-;",
        "2026-11-22T21:14:25Z ",
        "2026-11-22T21:14:25.123Z ",
        "    Nov 22 21:14:25 host kernel: ",
        "2026-11-22T21:14:25.123456789Z stderr F Nov 22 21:14:25 host sshd[12]: ",
        "/var/log/auth.log:12:Nov 22 21:14:25 host sshd[12]: ",
    ],
)
def test_a_line_of_another_program_is_not_read(head: str) -> None:
    """A line with the name or the facility of another program is ignored and counted, in every form."""
    events, old = run(head + LINE)
    assert events == []
    assert (old.counts.lines, old.counts.foreign) == (1, 1)


def weight(events: list[Event]) -> int:
    """The packets that events stand for."""
    return sum(event.weight for event in events if event.is_of_packets)


@pytest.mark.parametrize(
    "report",
    [
        "Nov 22 21:14:26 host last message repeated 9 times",
        "Nov 22 21:14:26 last message repeated 9 times",
        "Nov 22 21:14:26 host rsyslogd: last message repeated 9 times",
        "Nov 22 21:14:26 host -- last message repeated 9 times",
        "<5>Nov 22 21:14:26 host syslogd: last message repeated 9 times",
        "2026-11-22T21:14:26+00:00 host last message repeated 9 times",
        "Nov 22 21:14:26 host Last message 'iptables denied: IN=' repeated 9 times, suppressed by syslog-ng on host",
    ],
)
def test_a_repeated_line_counts_as_often_as_it_came(report: str) -> None:
    """What a log daemon left out because it was the same as the line before is counted, with the time of the report."""
    head = SYSLOG
    if "host" not in report.replace(" on host", ""):
        head = SYSLOG.replace("host ", "")
    events, old = run(head + LINE, report)
    assert (weight(events), len(events)) == (10, 2)
    assert events[1].realtime == LOCAL + 1_000_000 or report.startswith("2026")
    assert old.counts.ours == 2


@pytest.mark.parametrize(
    ("between", "report"),
    [
        ("Nov 22 21:14:25 host sshd[1]: hello", "Nov 22 21:14:26 host last message repeated 9 times"),
        ("Nov 22 21:14:25 other kernel: hello", "Nov 22 21:14:26 other last message repeated 9 times"),
        ("", "Nov 22 21:14:26 other last message repeated 9 times"),
        ("", "Nov 22 21:14:26 host user: last message repeated 9 times"),
        ("", "Nov 22 21:14:26 host user: host last message repeated 9 times"),
    ],
)
def test_a_report_about_another_line_repeats_nothing(between: str, report: str) -> None:
    """A report repeats the line before it, of the same host; and any program could write one with its own name."""
    lines = [SYSLOG + LINE, between, report]
    if not between:
        del lines[1]
    assert weight(run(*lines)[0]) == 1


@pytest.mark.parametrize(
    ("report", "count"),
    [
        ("host rsyslogd: imjournal: 42 messages lost due to rate-limiting", 42),
        ("host rsyslogd: imjournal: 42 messages lost due to rate-limiting (20000 allowed within 600 seconds)", 42),
        ("host rsyslogd[812]: imjournal: 1 message lost due to rate-limiting", 1),
        ("host rsyslogd-2177: imuxsock lost 42 messages from pid 12 due to rate-limiting", 42),
        ("host rsyslogd: imuxsock[pid: 12]: begin to drop messages due to rate-limiting", None),
        ("host systemd-journald[123]: Missed 42 kernel messages", 42),
        ("host journal: Missed 42 kernel messages", 42),
        ("host systemd-journald[123]: Suppressed 42 messages from kernel", 42),
        ("host systemd-journald[123]: /dev/kmsg buffer overrun, some messages lost.", 0),
        ("host kernel: printk: 42 messages suppressed.", 42),
        ("host kernel: [    1.234567] net_ratelimit: 42 callbacks suppressed", 42),
        ("host kernel: __ratelimit: 42 callbacks suppressed", 42),
        ("host kernel: ** 42 printk messages dropped **", 42),
        ("host sshd[1]: imjournal: 42 messages lost due to rate-limiting", None),
        ("host systemd-journald[123]: Suppressed 42 messages from sshd.service", None),
    ],
)
def test_a_reported_loss_is_an_event(report: str, count: int | None) -> None:
    """Messages that a log lost are counted, if the program that reports it is one that loses kernel lines."""
    events, old = run(f"Nov 22 21:14:25 {report}")
    assert old.counts.lost == (count or 0)
    if count is None:
        assert events == []
        return
    assert [event.name for event in events] == ["denials.lost"]
    assert events[0].fields.get("count", 0) == count
    assert (events[0].realtime, events[0].host) == (LOCAL, "host")


def test_a_loss_that_the_journal_reports_is_an_event() -> None:
    """In the entries of the journal too a report counts by the program that made it."""
    entry = {
        "__REALTIME_TIMESTAMP": str(UTC_TIME),
        "_TRANSPORT": "syslog",
        "_HOSTNAME": "host",
        "SYSLOG_IDENTIFIER": "rsyslogd",
        "MESSAGE": "imjournal: 42 messages lost due to rate-limiting",
    }
    events, old = run(json.dumps(entry), json.dumps({**entry, "SYSLOG_IDENTIFIER": "sshd"}))
    assert [(event.name, event.weight, event.realtime) for event in events] == [("denials.lost", 42, UTC_TIME)]
    assert (old.counts.lost, old.counts.others) == (42, 2)


def test_gaps_between_records_are_losses() -> None:
    """Numbers of kernel records that are missing count as lost; a new boot begins again with 0. Many gaps are reported
    together at the end."""
    events, old = run(f"4,10,1,-;{LINE}", "6,11,2,-;usb", f"4,54,3,-;{LINE}", f"4,0,1,-;{LINE}")
    assert [(event.name, event.weight) for event in events] == [
        ("denied", 1), ("denials.lost", 42), ("denied", 1), ("denied", 1),
    ]  # fmt: skip
    assert old.counts.lost == 42
    events, old = run(*(f"4,{2 * number},1,-;usb" for number in range(100)))
    assert [event.weight for event in events] == [1] * 10 + [89]
    assert old.counts.lost == 99


def read_prefixes(
    *lines: str, watched: tuple[Watched, ...] = (DENIED,), any_prefix: bool = True
) -> tuple[list[tuple[str, str, str]], LogFileReader]:
    """Event, prefix and source of the lines; and the reader with its account."""
    old = LogFileReader(watched, Filters(), StampReader(WRITTEN), any_prefix=any_prefix)
    events = old.events(line.encode("latin-1") for line in lines)
    return [(event.fields["meaning"], event.fields["prefix"], event.fields["src"]) for event in events], old


def test_any_prefix_is_read_as_a_field() -> None:
    """With any_prefix the grammar decides where the prefix ends. A prefix that is not watched means only: logged."""
    ours = "203.0.113.9"
    found, old = read_prefixes(
        SYSLOG + LINE,
        f"{SYSLOG}[UFW BLOCK] {PACKET}",
        f"{SYSLOG}[    1.234567] {PACKET}",
        f"[UFW BLOCK] {PACKET}",
        f"{SYSLOG}IN=eth9 OUT=eth8 SRC=6.6.6.6 {PACKET}",
    )
    assert found == [
        ("denied", "iptables denied: ", ours), ("logged", "[UFW BLOCK] ", ours), ("logged", "", ours),
        ("logged", "[UFW BLOCK] ", ours), ("logged", "IN=eth9 OUT=eth8 SRC=6.6.6.6 ", ours),
    ]  # fmt: skip
    assert (old.counts.ours, old.counts.bare) == (5, 1)


@pytest.mark.parametrize(
    "line",
    [
        f"{SYSLOG}TRACE: raw:PREROUTING:rule:1 {PACKET}",
        f"{SYSLOG}nf_ct_proto_6: invalid RST {PACKET}",
        f"{SYSLOG}PHYS{PACKET}",
        f"Nov 22 21:14:25 host sshd[12]: {PACKET}",
        f"2026-11-22T21:14:25Z {PACKET}",
        "Nov 22 21:14:25 host kernel: x IN= OUT= y",
    ],
)
def test_what_is_no_log_line_has_no_prefix(line: str) -> None:
    """Traces, messages of connection tracking and lines of other programs are not packets that a rule logged."""
    found, old = read_prefixes(line)
    assert found == []
    assert old.counts.other_prefixes == {}


def test_a_rule_without_a_prefix_can_be_watched() -> None:
    """The empty prefix is that of lines which begin with the devices; a longer prefix is not taken for it."""
    found, old = read_prefixes(
        SYSLOG + PACKET, f"{SYSLOG}[UFW BLOCK] {PACKET}", PACKET, watched=(Watched("all", "", Meaning.DENIED),),
        any_prefix=False,
    )  # fmt: skip
    assert found == [("denied", "", "203.0.113.9")] * 2
    assert old.counts.other_prefixes == {"[UFW BLOCK] ": 1}


def test_prefixes_that_are_not_watched_are_counted() -> None:
    """The account has the prefixes that a file has, in bounded memory."""
    lines = [f"{SYSLOG}[UFW BLOCK] {PACKET}", f"{SYSLOG}[UFW BLOCK] {PACKET}", f"[UFW ALLOW] {PACKET}"]
    _, old = read_prefixes(*lines, any_prefix=False)
    assert old.counts.other_prefixes == {"[UFW BLOCK] ": 2, "[UFW ALLOW] ": 1}
    _, old = read_prefixes(*(f"{SYSLOG}{number} {PACKET}" for number in range(1500)), any_prefix=False)
    assert len(old.counts.other_prefixes) == 1001
    assert sum(old.counts.other_prefixes.values()) == 1500


ULOGD = f"{PACKET.replace('TOS=0x00', 'TOS=00')}MARK=0 "


@pytest.mark.parametrize(
    ("line", "program"),
    [
        (f"Nov 22 21:14:25 host ulogd[12]: iptables denied: {ULOGD}", "ulogd"),
        (f"Nov 22 21:14:25 host iptables denied: {ULOGD}", "ulogd"),
        (f"100 6 tap100i0-IN 22/Nov/2026:21:14:25 +0100 policy DROP: {PACKET}", "Proxmox VE"),
        (f'Nov 22 21:14:25 UDM [WAN_LOCAL-D-4000] DESCR="Block All Traffic" {ULOGD}', "UniFi"),
    ],
)
def test_an_imitation_of_the_kernel_is_named(line: str, program: str) -> None:
    """Programs that print packets in the style of the kernel are not read, and the account names them."""
    events, old = run(line)
    assert events == []
    assert old.counts.imitations == {program: 1}
    assert old.counts.other_prefixes == {}
