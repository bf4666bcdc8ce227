"""A bed on a real kernel: what the host has matters, and nothing that happens in it is seen outside."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.bed import Beds
from fwguardd.kernel.host_network import read_host
from fwguardd.kernel.kmsg import KernelLog, Record, Start
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool
from fwguardd.packets.host import Host, Interface, Route, Sysctls
from fwguardd.packets.model import ConnectionState, Packet, Undecided
from fwguardd.ruleset.model import Family, Ruleset
from fwguardd.ruleset.save_format import read_saved
from tests.netns.conftest import ROOT, newest_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fwguardd.packets.model import Journey

ROUTER = Host(
    (
        Interface("eth0", addresses=("192.0.2.1/24", "2001:db8::1/64"), rp_filter=1, forwarding=True),
        Interface("eth1", addresses=("10.0.0.1/24",), forwarding=True),
        Interface("br0", "bridge"),
        Interface("eth2", master="br0"),
    ),
    (
        Route("192.0.2.0/24", dev="eth0", scope=253),
        Route("192.0.2.255/32", dev="eth0", table=255, type=3, scope=253),
        Route("10.0.0.0/24", dev="eth1", scope=253),
        Route("0.0.0.0/0", "192.0.2.254", "eth0"),
        Route("::/0", "2001:db8::fe", "eth0"),
    ),
    sysctls=Sysctls(ipv6_forwarding=False),
)


def rules(family: Family, text: str) -> Ruleset:
    """A ruleset, from lines without counters."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(":"):
            lines.append(f"{line} [0:0]")
        elif line.startswith("-A"):
            lines.append(f"[0:0] {line}")
        else:
            lines.append(line)
    return read_saved(family, "\n".join(lines) + "\n").shown


def packet(
    source: str, destination: str, port: int, into: str | None = "eth0", out: str | None = None, **more: object
) -> Packet:
    """A packet of TCP."""
    family = Family.IPV4
    if ":" in source:
        family = Family.IPV6
    return Packet(family, "tcp", ip_address(source), ip_address(destination), 40000, port, into, out, **more)  # type: ignore[arg-type]


@pytest.fixture
def pool() -> Iterator[NamespacePool]:
    """Namespaces that are made with privilege."""
    made = NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=0)
    yield made
    made.close()


def outcome(journey: Journey | Undecided) -> str:
    """The verdict, where the packet was routed to, and the position of the rule that decided."""
    if isinstance(journey, Undecided):
        return f"undecided: {journey.because}"
    if journey.deciding is None:
        return f"{journey.verdict}, {journey.routed}"
    return f"{journey.verdict}, {journey.routed}, {journey.deciding.chain} {journey.deciding.position}"


def sent(
    pool: NamespacePool, backend: str, text: str, packets: Sequence[Packet], host: Host = ROUTER, text6: str = ""
) -> list[str]:
    """What becomes of packets."""
    rulesets = {Family.IPV4: rules(Family.IPV4, text), Family.IPV6: rules(Family.IPV6, text6)}
    with Beds(backend, pool).prove(rulesets, host) as bed:
        assert bed.left_out == ()
        return [outcome(journey) for journey in bed.send(packets)]


def test_the_host_routes(pool: NamespacePool, backend: str) -> None:
    """Reverse paths, forwarding, missing routes and addresses that are local are those of the host."""
    policies = ":INPUT DROP\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n"
    policies += "-A INPUT -m pkttype --pkt-type broadcast -j REJECT\n"
    text = f"*filter\n{policies}-A INPUT -m addrtype --dst-type LOCAL -j ACCEPT\nCOMMIT\n"
    assert sent(
        pool,
        backend,
        text,
        [
            packet("198.51.100.7", "192.0.2.1", 22),
            packet("198.51.100.7", "10.0.0.1", 22),
            packet("10.0.0.9", "192.0.2.1", 22),
            packet("198.51.100.7", "10.0.0.9", 22, "eth0", "eth1"),
            packet("10.0.0.9", "198.51.100.7", 22, "eth1", "eth0"),
            packet("127.0.0.1", "127.0.0.1", 22, "lo"),
            packet("2001:db8:1::7", "2001:db8:2::7", 22, "eth0", "eth0"),
            packet("198.51.100.7", "10.9.9.9", 22, None, "eth0"),
            packet("192.0.2.9", "224.0.0.251", 5353),
            packet("192.0.2.9", "192.0.2.255", 137),
            packet("192.0.2.9", "255.255.255.255", 67),
            packet("fe80::9", "ff02::fb", 5353),
        ],
    ) == [
        "accept, local, INPUT 2",
        "accept, local, INPUT 2",
        "drop, reverse path",
        "accept, eth1, FORWARD None",
        "accept, eth0, FORWARD None",
        "accept, local, INPUT 2",
        "drop, forwarding is off",
        "accept, eth0, OUTPUT None",
        "drop, local, INPUT None",
        "reject, local, INPUT 1",
        "reject, local, INPUT 1",
        "accept, local",
    ]


NAT = """*nat
:PREROUTING ACCEPT
:POSTROUTING ACCEPT
-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.9:80
-A POSTROUTING -o eth0 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT
:FORWARD DROP
-A FORWARD -d 10.0.0.9/32 -p tcp -m tcp --dport 80 -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
COMMIT
"""


def test_nat_changes_a_packet_and_its_connection(pool: NamespacePool, backend: str) -> None:
    """A packet has the translated addresses after the hook, also one of an established connection; each packet of a
    connection is sent as if it were the only one."""
    new = packet("198.51.100.7", "192.0.2.1", 8080)
    old = packet("198.51.100.7", "192.0.2.1", 8080, state=ConnectionState.ESTABLISHED)
    with Beds(backend, pool).prove({Family.IPV4: rules(Family.IPV4, NAT)}, ROUTER) as bed:
        journeys = bed.send([new, old, new, old])
    assert [outcome(journey) for journey in journeys] == ["accept, eth1, FORWARD 1"] * 4
    for journey in journeys:
        assert not isinstance(journey, Undecided)
        assert journey.deciding is not None
        assert str(journey.deciding.packet.destination) == "10.0.0.9"
        assert journey.deciding.packet.destination_port == 80


def test_sets_have_the_entries_of_the_host(pool: NamespacePool, backend: str) -> None:
    """Sets are copied with their entries; one that cannot be is named."""
    script = "create bad hash:net timeout 100\nadd bad 198.51.100.0/24\nadd bad 198.51.100.9 nomatch\n"
    script += "create both hash:ip,port\nadd both 203.0.113.9,tcp:80\ncreate of list:set\nadd of bad\n"
    subprocess.run(["ipset", "restore"], input=script, text=True, check=True)
    text = (
        "*filter\n:INPUT ACCEPT\n-A INPUT -m set --match-set bad src -j DROP\n"
        "-A INPUT -m set --match-set both src,dst -j REJECT\n"
        "-A INPUT -p tcp -m tcp --dport 99 -m set --match-set of src -j DROP\nCOMMIT\n"
    )
    assert sent(
        pool,
        backend,
        text,
        [
            packet("198.51.100.7", "192.0.2.1", 22),
            packet("198.51.100.9", "192.0.2.1", 22),
            packet("203.0.113.9", "192.0.2.1", 80),
            packet("203.0.113.9", "192.0.2.1", 81),
            packet("203.0.113.9", "192.0.2.1", 99),
        ],
    ) == [
        "drop, local, INPUT 1",
        "accept, local, INPUT None",
        "reject, local, INPUT 2",
        "accept, local, INPUT None",
        "undecided: whether the rule matches depends on -m set of, which a bed does not have",
    ]


def test_nothing_is_seen_outside(
    pool: NamespacePool, backend: str, kernel_log_of_namespaces: Callable[[], None]
) -> None:
    """Neither LOG rules nor the trace write to the kernel log of the host, and the network of the host, its rules and
    its connections stay as they are."""
    kernel_log_of_namespaces()
    before = (read_host(), newest_number())
    text = '*filter\n:INPUT DROP\n-A INPUT -j LOG --log-prefix "never outside "\nCOMMIT\n'
    packets = [packet("198.51.100.7", "192.0.2.1", port) for port in range(1, 101)]
    assert sent(pool, backend, text, packets) == ["drop, local, INPUT None"] * 100
    assert read_host() == before[0]
    with KernelLog(start=Start.OLDEST) as log:
        while found := log.read_available(10_000):
            for record in found:
                if isinstance(record, Record) and record.seq > before[1]:
                    assert "never outside" not in record.text
                    assert "TRACE: filter:INPUT" not in record.text


def test_an_ordinary_user_has_a_bed(backend: str) -> None:
    """In a user namespace packets are sent and traced in the same way, more of them than its small buffers hold."""
    pool = NamespacePool(lambda: NamespaceMethod.USER_NAMESPACE, spares=0)
    many = "".join(f"-A INPUT -p tcp -m comment --comment {number}\n" for number in range(200))
    text = f"*filter\n:INPUT DROP\n{many}-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    packets = [packet("198.51.100.7", "192.0.2.1", 22 + number % 2) for number in range(20)]
    try:
        found = sent(pool, backend, text, packets)
    finally:
        pool.close()
    assert found == ["accept, local, INPUT 201", "drop, local, INPUT None"] * 10


def test_a_port_of_a_bridge_has_no_packets_of_its_own(pool: NamespacePool, backend: str) -> None:
    """The kernel shows rules a packet of a bridge as one of the bridge; a packet of its port is undecided."""
    (found,) = sent(
        pool, backend, "*filter\n:INPUT ACCEPT\nCOMMIT\n", [packet("198.51.100.7", "192.0.2.1", 22, "eth2")]
    )
    assert found == "undecided: eth2 belongs to br0, and rules see its packets as those of br0: name br0"


WITH_VRF = replace(ROUTER, interfaces=(*ROUTER.interfaces, Interface("blue", "vrf"), Interface("eth3", master="blue")))


def test_a_vrf_is_undecided(pool: NamespacePool, backend: str) -> None:
    """Packets of a VRF and of its interfaces would meet rules and routes that a bed does not have; others do not."""
    text = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\nCOMMIT\n"
    packets = [
        packet("198.51.100.7", "192.0.2.1", 22, "eth3"),
        packet("198.51.100.7", "192.0.2.1", 22, "blue"),
        packet("198.51.100.7", "10.0.0.9", 22, "eth0", "eth3"),
        packet("198.51.100.7", "192.0.2.1", 22),
    ]
    assert sent(pool, backend, text, packets, WITH_VRF) == [
        "undecided: eth3 has the routes of the VRF blue, which a bed does not have",
        "undecided: blue has the routes of the VRF blue, which a bed does not have",
        "undecided: eth3 has the routes of the VRF blue, which a bed does not have",
        "accept, local, INPUT None",
    ]


LACKED = {
    "-m physdev --physdev-in eth2 -j DROP": "-m physdev",
    "-m policy --dir in --pol ipsec -j ACCEPT": "-m policy",
    "-m mac --mac-source 02:00:00:00:00:01 -j DROP": "-m mac",
    "-m time --timestart 08:00:00 --timestop 18:00:00 -j DROP": "-m time",
    "-m statistic --mode random --probability 0.5 -j DROP": "-m statistic",
    "-m helper --helper ftp -j DROP": "-m helper",
    "-m physdev --physdev-in eth2 -j ACCEPT": "",
    "-s 203.0.113.9/32 -m policy --dir in --pol ipsec -j DROP": "",
}
"""Rules, and the match for which a packet that meets them is undecided; "" where they make no difference."""


def test_a_match_that_a_bed_does_not_have_is_named(pool: NamespacePool, backend: str) -> None:
    """A port of a bridge, IPsec, a hardware address and others: undecided by name, where the rule would turn the
    verdict."""
    for text, match in LACKED.items():
        policy = "ACCEPT"
        if "policy" in match:
            policy = "DROP"
        rule = f"*filter\n:INPUT {policy}\n-A INPUT {text}\nCOMMIT\n"
        (found,) = sent(pool, backend, rule, [packet("198.51.100.7", "192.0.2.1", 22)])
        expected = "accept, local, INPUT None"
        if match:
            expected = f"undecided: whether the rule matches depends on {match}, which a bed does not have"
        assert found == expected, text


FRAGMENTS = """*raw
:PREROUTING ACCEPT
-A PREROUTING -f -j DROP
COMMIT
*filter
:INPUT ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
{more}COMMIT
"""


def test_fragments_are_what_the_kernel_makes_of_them(pool: NamespacePool, backend: str) -> None:
    """Rules meet the second fragment of a packet, unless connections are tracked: then they meet the whole."""
    fragments = [packet("198.51.100.7", "192.0.2.1", 22, fragment=True)]
    assert sent(pool, backend, FRAGMENTS.format(more=""), fragments) == ["drop, , PREROUTING 1"]
    tracked = FRAGMENTS.format(more="-A INPUT -m conntrack --ctstate NEW -j ACCEPT\n")
    assert sent(pool, backend, tracked, fragments) == ["accept, local, INPUT 1"]
    text6 = "*filter\n:INPUT DROP\n-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    fragments = [packet("2001:db8:1::7", "2001:db8::1", 22, fragment=True)]
    assert sent(pool, backend, tracked, fragments, text6=text6) == ["accept, local, INPUT 1"]


STATES = """*raw
:PREROUTING ACCEPT
:OUTPUT ACCEPT
-A PREROUTING -p udp -j CT --notrack
COMMIT
*filter
:INPUT DROP
:OUTPUT DROP
-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED -j ACCEPT
-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j REJECT
-A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A OUTPUT -m conntrack --ctstate RELATED -j ACCEPT
-A OUTPUT -m mark --mark 0x5 -j ACCEPT
-A OUTPUT -m owner --uid-owner 4711 --gid-owner 12 -j ACCEPT
COMMIT
"""


def test_states_owners_and_marks(pool: NamespacePool, backend: str) -> None:
    """Each state is one for the kernel; a packet of this host has the mark and the owner that are asked for."""
    inbound = packet("198.51.100.7", "192.0.2.1", 22)
    outbound = packet("192.0.2.1", "198.51.100.7", 22, None, "eth0")
    echo = replace(inbound, protocol="icmp", source_port=None, destination_port=None)
    established, related = ConnectionState.ESTABLISHED, ConnectionState.RELATED
    expected = {
        inbound: "drop, local, INPUT None",
        replace(inbound, state=established): "accept, local, INPUT 1",
        replace(inbound, state=related): "accept, local, INPUT 2",
        replace(inbound, state=ConnectionState.UNTRACKED): "accept, local, INPUT 3",
        replace(inbound, protocol="udp"): "accept, local, INPUT 3",
        replace(inbound, flags=frozenset({"FIN", "SYN"})): "reject, local, INPUT 4",
        replace(inbound, protocol="47", source_port=None, state=established): "accept, local, INPUT 1",
        replace(inbound, protocol="sctp", state=established): "accept, local, INPUT 1",
        replace(echo, icmp_type=0, state=established): "accept, local, INPUT 1",
        replace(echo, icmp_type=0): "reject, local, INPUT 4",
        replace(echo, icmp_type=11, state=related): "accept, local, INPUT 2",
        replace(echo, icmp_type=8, state=related): "undecided: icmp type 8 is never RELATED: only errors are",
        outbound: "drop, eth0, OUTPUT None",
        replace(outbound, state=established): "accept, eth0, OUTPUT 1",
        replace(outbound, state=related): "accept, eth0, OUTPUT 2",
        replace(outbound, mark=5): "accept, eth0, OUTPUT 3",
        replace(outbound, uid=4711, gid=12): "accept, eth0, OUTPUT 4",
        replace(outbound, uid=4711): "drop, eth0, OUTPUT None",
    }
    assert dict(zip(expected, sent(pool, backend, STATES, list(expected)), strict=True)) == expected


DEAF = """
from fwguardd.kernel import bed_worker
from fwguardd.packets.host import Host
bed_worker.NftTraces.read = bed_worker.HookLog.read = lambda _self: []
try:
    bed_worker.BedWorker(Host().document(), "nft", within=0.05)
except OSError as error:
    print(error.strerror)
"""


def test_a_kernel_that_shows_no_packets_is_told() -> None:
    """Where neither a trace of packets comes nor a log, there is no bed, and the reason is said once; no packet is said
    to be slow."""
    done = subprocess.run([sys.executable, "-c", DEAF], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the kernel neither traces nor logs packets in nf_tables")
