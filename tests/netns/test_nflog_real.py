"""NFLOG itself: packets that real rules copy in a namespace of the test's own arrive, are counted, and are read.

What a copied packet becomes is held to what the LOG line about the very same packet becomes.
"""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Extent, Meaning, SocketOwner, Watched
from fwguardd.denials.packets import PacketReader
from fwguardd.denials.sentences import sentence
from fwguardd.kernel.kmsg import KernelLog, Lost, Record, Start
from fwguardd.kernel.nflog import DeviceNames, GroupTakenError, PacketLog
from fwguardd.kernel.nflog_message import LoggedPacket
from tests.corpus.denials.packets import fragment, icmp_packets, ipv4_option_packets, ipv4_packets, ipv6_packets
from tests.corpus.denials.scene import send_udp
from tests.netns.frames import (
    ETH_IPV4,
    HOST_MAC,
    Device,
    LogFromEveryNamespace,
    ethernet,
    host_with_device,
    ipv4,
    ipv6,
    packet_frame,
    tcp,
    udp,
)
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel_log

ROOT: Final = Path(__file__).parents[2]
GROUP: Final = 5
PATIENCE: Final = LONGEST
"""Seconds to wait for a packet or a line."""
LOG_EVERYTHING: Final = ("--log-ip-options", "--log-tcp-options", "--log-tcp-sequence", "--log-uid")


class CopiedHost:
    """A namespace with one device; what is sent to it comes up in the group, and in the kernel log."""

    def __init__(self, device: Device, logging: LogFromEveryNamespace, suffix: str) -> None:
        self.watched = Watched("test", f"{secrets.token_hex(4)} denied: ", Meaning.DENIED)
        self.device, self._logging, self._suffix = device, logging, suffix

    def rule(self, target: str, *options: str, chain: str = "PREROUTING", match: tuple[str, ...] = ()) -> None:
        """Load a rule of both families: LOG or NFLOG, with our prefix."""
        prefix = f"--{target.lower()}-prefix"
        for tool in ("iptables", "ip6tables"):
            rule = ["-t", "mangle", "-A", chain, *match, "-j", target, prefix, self.watched.prefix, *options]
            subprocess.run([f"{tool}{self._suffix}", *rule], check=True)

    def copy_all(self) -> None:
        """An NFLOG rule for all that comes in."""
        self.rule("NFLOG", "--nflog-group", str(GROUP))

    def send(self, packet: bytes) -> None:
        """Let the host receive a packet."""
        self._logging.set()
        self.device.send(packet_frame(packet))

    def packet_count(self) -> int:
        """What the rules' own counters say."""
        total = 0
        for tool in ("iptables", "ip6tables"):
            command = [f"{tool}{self._suffix}-save", "-c", "-t", "mangle"]
            saved = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            total += sum(int(line[1:].split(":")[0]) for line in saved.splitlines() if "-j NFLOG" in line)
        return total


@pytest.fixture(scope="module")
def logging() -> Iterator[LogFromEveryNamespace]:
    """The switch, found while still in the initial namespace: a test's own has none."""
    with LogFromEveryNamespace() as switch:
        yield switch


@pytest.fixture(params=["", "-legacy"], ids=["nft", "legacy"])
def host(request: pytest.FixtureRequest, logging: LogFromEveryNamespace) -> Iterator[CopiedHost]:
    """A host behind either half of the kernel."""
    with host_with_device() as device:
        yield CopiedHost(device, logging, request.param)


@pytest.fixture
def names() -> Iterator[DeviceNames]:
    """The devices of the test's namespace."""
    made = DeviceNames()
    yield made
    made.close()


def run(command: str) -> None:
    """A command in the test's namespace."""
    subprocess.run(command.split(), check=True)


def gather(log: PacketLog, wanted: int) -> list[LoggedPacket]:
    """So many packets, waited for as an event loop waits; none of them may be lost."""
    found: list[LoggedPacket] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < wanted and time.monotonic() < deadline:
        select.select([log], [], [], deadline - time.monotonic())
        for item in log.read_available(1000):
            assert isinstance(item, LoggedPacket)
            found.append(item)
    assert len(found) == wanted
    return found


def gather_lines(log: KernelLog, prefix: str, wanted: int) -> list[str]:
    """So many lines with our prefix."""
    found: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < wanted and time.monotonic() < deadline:
        select.select([log], [], [], deadline - time.monotonic())
        readings = log.read_available(1000)
        found += [item.text for item in readings if isinstance(item, Record) and item.text.startswith(prefix)]
    assert len(found) == wanted
    return found


def denials_of(host: CopiedHost, names: DeviceNames, packets: list[LoggedPacket]) -> list[Denial]:
    """What the packets are."""
    reader = PacketReader([host.watched], names.name)
    found = [reader.read(packet) for packet in packets]
    return [denial for denial in found if denial is not None]


def every_packet() -> dict[str, bytes]:
    """The packets of the corpus that the kernel lets through to the hook, with the marks of their shapes."""
    return ipv4_packets() | ipv4_option_packets() | icmp_packets() | ipv6_packets()


def test_a_copied_packet_and_its_line_are_the_same_denial(host: CopiedHost, names: DeviceNames) -> None:
    """Each packet of the corpus, sent past a LOG and an NFLOG rule, becomes the same denial from both, but for `text`.

    What a line does not tell and a copy does: that a later IPv4 fragment has AH in it, and that of an embedded later
    IPv6 fragment the next header is one of options.
    """
    host.rule("LOG", *LOG_EVERYTHING)
    host.copy_all()
    sent = list(every_packet().items())
    lines: list[str] = []
    packets: list[LoggedPacket] = []
    with PacketLog(GROUP) as log, KernelLog(start=Start.END) as kernel_log:
        # In pieces, since the kernel log is small, and others write to it too.
        for start in range(0, len(sent), 50):
            piece = sent[start : start + 50]
            for _, packet in piece:
                host.send(packet)
            packets += gather(log, len(piece))
            lines += gather_lines(kernel_log, host.watched.prefix, len(piece))
    reader = LineReader([host.watched])
    heard = denials_of(host, names, packets)
    differing = {
        name
        for (name, _), line, denial in zip(sent, lines, heard, strict=True)
        if replace(denial, text=line) != reader.read(line)
    }
    assert differing == {"fragment-later-ah", "icmp-about-ah-fragment", "6-icmp-about-later-options"}


def test_the_way_through_the_host_owner_and_mark_are_the_same(host: CopiedHost, names: DeviceNames) -> None:
    """Devices, mark and owner of the host's own marked packets are those of the line."""
    run("ip addr add 10.9.0.1/24 dev eth0")
    run("ip neigh add 10.9.0.2 lladdr 02:00:5e:10:00:02 dev eth0 nud permanent")
    only = ("-p", "udp")
    host.rule("LOG", *LOG_EVERYTHING, chain="OUTPUT", match=only)
    host.rule("NFLOG", "--nflog-group", str(GROUP), chain="OUTPUT", match=only)
    with PacketLog(GROUP) as log, KernelLog(start=Start.END) as kernel_log:
        host.send(ipv4(udp(), 17))
        send_udp("10.9.0.2", mark=0xBEEF, user=65534)
        (packet,) = gather(log, 1)
        (line,) = gather_lines(kernel_log, host.watched.prefix, 1)
    (denial,) = denials_of(host, names, [packet])
    assert replace(denial, text=line) == LineReader([host.watched]).read(line)
    assert (denial.devices.outgoing, denial.mark, denial.owner) == ("eth0", 0xBEEF, SocketOwner(65534, 65534))


def test_bridge_ports_are_the_same(host: CopiedHost, names: DeviceNames) -> None:
    """Of a packet that a bridge handed to IP, both tell the bridge and its port."""
    for command in (
        "ip link add br0 type bridge",
        f"ip link set br0 address {HOST_MAC.hex(':')} addrgenmode none up",
        "ip link set eth0 master br0",
        "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
    ):
        run(command)
    host.rule("LOG", *LOG_EVERYTHING)
    host.copy_all()
    with PacketLog(GROUP) as log, KernelLog(start=Start.END) as kernel_log:
        host.send(ipv4(tcp(), 6))
        (packet,) = gather(log, 1)
        (line,) = gather_lines(kernel_log, host.watched.prefix, 1)
    (denial,) = denials_of(host, names, [packet])
    assert replace(denial, text=line) == LineReader([host.watched]).read(line)
    assert (denial.devices.incoming, denial.devices.incoming_port) == ("br0", "eth0")


def test_a_long_chain_of_headers_is_read_as_far_as_it_was_copied(host: CopiedHost, names: DeviceNames) -> None:
    """What lies beyond the copy does not count as missing in the packet; all before it is in the event."""
    host.copy_all()
    with PacketLog(GROUP) as log:
        host.send(ipv6(fragment(44) * 80 + fragment(6) + tcp(), 44))
        host.send(ipv4(udp(b"x" * 1000), 17))
        packets = gather(log, 2)
    chain, long = denials_of(host, names, packets)
    assert (chain.src, chain.transport, chain.extent) == ("2001:db8:9::2", None, Extent.CUT_COPY)
    assert (long.dpt, long.extent) == (53, Extent.WHOLE)


def test_an_author_may_have_less_copied(host: CopiedHost, names: DeviceNames) -> None:
    """With --nflog-size the copy ends where the author says; the packet is not called short for that."""
    host.rule("NFLOG", "--nflog-group", str(GROUP), "--nflog-size", "24")
    with PacketLog(GROUP) as log:
        host.send(ipv4(tcp(), 6, src="203.0.113.9"))
        packets = gather(log, 1)
    (denial,) = denials_of(host, names, packets)
    assert sentence(denial) == "denied TCP 203.0.113.9 → 10.9.0.1 in eth0 (copy cut by the kernel)"


def test_another_prefix_is_anothers(host: CopiedHost, names: DeviceNames) -> None:
    """The prefix is compared as a whole: one that is longer than ours is not ours, and 63 bytes of one are kept."""
    longest = "p" * 62 + " "
    host.watched = replace(host.watched, prefix=longest)
    host.copy_all()
    with PacketLog(GROUP) as log:
        host.send(ipv4(tcp(), 6))
        packets = gather(log, 1)
    assert packets[0].prefix == longest.encode()
    assert len(denials_of(host, names, packets)) == 1
    host.watched = replace(host.watched, prefix=longest[:-1])
    assert denials_of(host, names, packets) == []


def test_a_renamed_device_has_its_new_name(host: CopiedHost, names: DeviceNames) -> None:
    """A device's name is that of the time of reading, and a device that is gone has its index."""
    host.copy_all()
    with PacketLog(GROUP) as log:
        host.send(ipv4(tcp(), 6))
        packets = gather(log, 1)
        assert denials_of(host, names, packets)[0].devices.incoming == "eth0"
        run("ip link set eth0 down")
        run("ip link set eth0 name outside")
        assert names.refresh()
        assert denials_of(host, names, packets)[0].devices.incoming == "outside"
        index = packets[0].devices[0]
        run("ip link del outside")
        assert names.refresh()
        assert not names.refresh()
        assert denials_of(host, names, packets)[0].devices.incoming == f"index:{index}"


def test_a_group_has_one_owner(host: CopiedHost) -> None:
    """The error for a group that is in use names its owner; when the owner leaves it, it can be opened."""
    host.copy_all()
    with PacketLog(GROUP) as first:
        with pytest.raises(GroupTakenError, match=f"NFLOG group {GROUP} is bound to netlink port {first.port}"):
            PacketLog(GROUP)
        PacketLog(GROUP + 1).close()
    PacketLog(GROUP).close()


def test_every_packet_is_read_or_counted_when_the_socket_overflows(host: CopiedHost) -> None:
    """In a socket with little room packets are lost; those read and those counted as lost are all that the rule saw."""
    host.copy_all()
    read = lost = 0
    with PacketLog(GROUP, receive_bytes=4096) as log:
        for _ in range(5000):
            host.device.send(ethernet(ipv4(tcp(dpt=1), 6), ETH_IPV4))
        # The last loss is known in full once a packet comes after it.
        early = log.read_available(10_000)
        assert Lost(1) in early
        host.device.send(ethernet(ipv4(tcp(dpt=2), 6), ETH_IPV4))
        deadline = time.monotonic() + PATIENCE
        readings = early
        while read + lost < host.packet_count() and time.monotonic() < deadline:
            read += sum(isinstance(item, LoggedPacket) for item in readings)
            lost += sum(item.count for item in readings if isinstance(item, Lost))
            select.select([log], [], [], 0.1)
            readings = log.read_available(10_000)
    assert lost > 0
    assert read + lost == host.packet_count() == 5001


def test_nothing_happens_while_nothing_is_logged(host: CopiedHost) -> None:
    """The socket stays silent until a packet comes: on an idle host nothing wakes up."""
    host.copy_all()
    with PacketLog(GROUP) as log:
        assert log.read_available(10) == []
        assert select.select([log], [], [], 0.3)[0] == []
        host.send(ipv4(tcp(), 6))
        assert select.select([log], [], [], PATIENCE)[0] == [log]


def test_without_the_capability_the_error_says_which(host: CopiedHost) -> None:
    """The error of a process without CAP_NET_ADMIN names the capability."""
    host.copy_all()
    program = (
        "from fwguardd.kernel.nflog import PacketLog, PacketLogNotPermittedError\n"
        "try:\n    PacketLog(5)\nexcept PacketLogNotPermittedError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], user=65534, env=environment, check=True, capture_output=True, text=True
    )
    assert "CAP_NET_ADMIN" in done.stdout
