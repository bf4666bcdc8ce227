"""The line parser, rule by rule. The breadth of the kernel's shapes is in tests/corpus."""

from __future__ import annotations

import dataclasses

import pytest

from fwguardd.denials.aggregation import flow_of
from fwguardd.denials.fields import denial_fields
from fwguardd.denials.grammar import compress_ipv6, escaped_length, kernel_escaped
from fwguardd.denials.layers import LinkReader
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import (
    Bare,
    Denial,
    Extent,
    FragmentHeader,
    Hardware,
    Icmp,
    Incomplete,
    Ipsec,
    IPv4,
    IPv6,
    Meaning,
    OptionsHeader,
    PacketFamily,
    SocketOwner,
    Tcp,
    Unparsed,
    Watched,
    icmp_type_name,
)
from fwguardd.denials.sentences import sentence

DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
OUTPUT = Watched("output", "[Output Log] ", Meaning.LOGGED)
READER = LineReader([DENIED, OUTPUT])

LINK = "IN=eth0 OUT= MAC=52:54:00:12:34:56:52:54:00:65:43:21:08:00 "
ADDRESSES = "SRC=203.0.113.9 DST=10.0.0.1 "
IP = f"{ADDRESSES}LEN=60 TOS=0x00 PREC=0x00 TTL=51 ID=4711 DF "
TCP = "PROTO=TCP SPT=51234 DPT=23 WINDOW=64240 RES=0x00 SYN URGP=0 "
SYN = f"iptables denied: {LINK}{IP}{TCP}"
ADDRESSES6 = "SRC=2001:0db8:0000:0000:0000:0000:0000:0002 DST=2001:0db8:0000:0000:0000:0000:0000:0001 "
IP6 = f"{ADDRESSES6}LEN=60 TC=0 HOPLIMIT=64 FLOWLBL=0 "


def denial(text: str, reader: LineReader = READER) -> Denial:
    """The denial that a line must be."""
    outcome = reader.read(text)
    assert isinstance(outcome, Denial), outcome
    return outcome


def unparsed(text: str, reader: LineReader = READER) -> Unparsed:
    """The unparsed line that a line must be."""
    outcome = reader.read(text)
    assert isinstance(outcome, Unparsed), outcome
    return outcome


def test_all_layers_of_a_syn() -> None:
    """An ordinary line becomes one value per layer, nothing lost and nothing made up."""
    assert denial(SYN) == Denial(
        watched=DENIED,
        text=SYN,
        devices=denial(SYN).devices,
        hardware=Hardware(
            "52:54:00:65:43:21", "52:54:00:12:34:56", 0x0800, "52:54:00:12:34:56:52:54:00:65:43:21:08:00"
        ),
        family=PacketFamily.IPV4,
        network=IPv4("203.0.113.9", "10.0.0.1", 60, 0, 0, 51, 4711, ("DF",), 0, None),
        transport=Tcp(51234, 23, None, None, 64240, 0, ("SYN",), 0, None),
        owner=None,
        mark=None,
        extent=Extent.WHOLE,
    )
    devices = denial(SYN).devices
    assert dataclasses.astuple(devices) == ("eth0", None, None, None)


def test_fields_of_a_syn() -> None:
    """The flat event fields: lower-case keys, numbers as numbers, and only what the line has."""
    assert denial_fields(denial(SYN)) == {
        "name": "denied",
        "prefix": "iptables denied: ",
        "meaning": "denied",
        "family": "ipv4",
        "in": "eth0",
        "src": "203.0.113.9",
        "dst": "10.0.0.1",
        "proto": "tcp",
        "mac_src": "52:54:00:65:43:21",
        "mac_dst": "52:54:00:12:34:56",
        "ethertype": "0800",
        "len": 60,
        "ttl": 51,
        "tos": 0,
        "id": 4711,
        "ip_flags": ("DF",),
        "spt": 51234,
        "dpt": 23,
        "flags": ("SYN",),
        "window": 64240,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SYN, "denied TCP SYN 203.0.113.9:51234 → 10.0.0.1:23 in eth0"),
        (
            f"iptables denied: IN=eth0 OUT= MAC= {IP6}PROTO=UDP SPT=5000 DPT=443 LEN=20 ",
            "denied UDP [2001:db8::2]:5000 → [2001:db8::1]:443 in eth0",
        ),
        (
            f"iptables denied: {LINK}{IP}PROTO=ICMP TYPE=8 CODE=0 ID=1 SEQ=2 ",
            "denied ICMP echo-request 203.0.113.9 → 10.0.0.1 in eth0",
        ),
        (f"[Output Log] IN= OUT=eth0 {IP}PROTO=47 ", "logged protocol 47 203.0.113.9 → 10.0.0.1 out eth0"),
        (
            f"iptables denied: IN=br0 OUT=br1 PHYSIN=eth0 PHYSOUT=eth1 MAC= {IP}{TCP.replace('SYN ', 'ACK SYN ')}",
            "denied TCP SYN+ACK 203.0.113.9:51234 → 10.0.0.1:23 in br0 port eth0 out br1 port eth1",
        ),
        (
            f"iptables denied: {LINK}{IP}{TCP.replace('SYN ', '')}",
            "denied TCP without flags 203.0.113.9:51234 → 10.0.0.1:23 in eth0",
        ),
        (
            f"iptables denied: {LINK}{IP}PROTO=TCP INCOMPLETE [8 bytes] ",
            "denied TCP 203.0.113.9 → 10.0.0.1 in eth0 (short packet)",
        ),
    ],
)
def test_sentence(text: str, words: str) -> None:
    """The sentence that a person reads: verb, protocol, from, to, way."""
    assert sentence(denial(text)) == words


@pytest.mark.parametrize(
    "text", ["", "iptables denied:", "usb 1-1: new device", f" {SYN}", f"kernel: {SYN}", SYN.upper()]
)
def test_only_the_exact_prefix_at_the_very_start_is_ours(text: str) -> None:
    """Any other line is None, even when the prefix comes later in it."""
    assert READER.read(text) is None


def test_longest_watched_prefix_wins() -> None:
    """When one prefix is the beginning of another, a line goes to the longer one, whatever the order of settings."""
    short = Watched("short", "fw ", Meaning.LOGGED)
    long = Watched("long", "fw drop ", Meaning.DENIED)
    for order in ([short, long], [long, short]):
        reader = LineReader(order)
        assert denial(f"fw drop {LINK}{IP}{TCP}", reader).watched is long
        assert denial(f"fw {LINK}{IP}{TCP}", reader).watched is short


def test_prefix_is_compared_in_the_kernel_logs_spelling() -> None:
    """A prefix with bytes that the kernel log escapes is written in the settings as in the rule, and is found."""
    reader = LineReader([Watched("odd", "a\\b\té ", Meaning.DENIED)])
    assert denial(rf"a\x5cb\x09\xc3\xa9 {LINK}{IP}{TCP}", reader).src == "203.0.113.9"


def test_prefix_may_look_like_devices() -> None:
    """What a prefix says is never read, be it the kernel's own words."""
    reader = LineReader([Watched("odd", "IN=eth9 OUT=eth8 SRC=6.6.6.6 ", Meaning.DENIED)])
    found = denial(f"IN=eth9 OUT=eth8 SRC=6.6.6.6 {LINK}{IP}{TCP}", reader)
    assert (found.devices.incoming, found.devices.outgoing, found.src) == ("eth0", None, "203.0.113.9")


def test_empty_prefix_is_that_of_rules_without_one() -> None:
    """Lines of a rule without a prefix begin with the devices; no other line is taken for one of them."""
    reader = LineReader([DENIED, Watched("all", "", Meaning.LOGGED)])
    text = SYN.removeprefix(DENIED.prefix)
    found = reader.read(text)
    assert isinstance(found, Denial)
    assert (found.watched.prefix, found.devices.incoming) == ("", "eth0")
    assert reader.read_flow(text) == flow_of(found)
    assert reader.read(f"usb 1-1: {text}") is None
    assert reader.read_flow(f"usb 1-1: {text}") is None


def test_prefix_given_twice_is_refused() -> None:
    """One prefix cannot have two meanings."""
    with pytest.raises(ValueError, match="same prefix"):
        LineReader([DENIED, Watched("again", DENIED.prefix, Meaning.LOGGED)])


def test_without_prefixes_nothing_is_ours() -> None:
    """A reader that watches nothing reads nothing."""
    assert LineReader([]).read(SYN) is None


def test_unparsed_line_says_where_and_what() -> None:
    """A line outside the grammar keeps its text, and names the position and what the grammar wants there."""
    text = SYN.replace("PROTO=TCP", "PROTO=XXX")
    outcome = unparsed(text)
    assert outcome.watched is DENIED
    assert outcome.text == text
    assert text[outcome.position :].startswith("PROTO=XXX")
    assert outcome.expected == "PROTO="


@pytest.mark.parametrize("name", ["SRC=6.6.6.6", "OUT=", "PHYSIN=eth0", "IN=eth0", "]", '"', r"\x01\x1b[31m", "=" * 15])
def test_hostile_device_is_only_a_name(name: str) -> None:
    """A device that is called like a field stays a device; no other field changes."""
    plain = denial_fields(denial(SYN))
    hostile = denial_fields(denial(SYN.replace("IN=eth0", f"IN={name}")))
    assert hostile == {**plain, "in": name}


def test_kept_links_are_bounded() -> None:
    """A flood of forged hardware addresses takes no memory for good."""
    links = LinkReader()
    for number in range(5000):
        line = f"IN=eth0 OUT= MAC={number.to_bytes(14).hex(':')} "
        link, position = links.read(line, 0)
        assert position == len(line)
        assert link.hardware is not None
    assert len(links._seen) <= 512


@pytest.mark.parametrize(
    ("octets", "hardware"),
    [
        ("", None),
        ("45:00", Hardware(None, None, None, "45:00")),
        (
            "00:01:02:03:04:05:10:11:12:13:14:15:81:00:00:05:08:00",
            Hardware(
                "10:11:12:13:14:15",
                "00:01:02:03:04:05",
                0x8100,
                "00:01:02:03:04:05:10:11:12:13:14:15:81:00:00:05:08:00",
            ),
        ),
    ],
)
def test_link_layer_header_of_any_length(octets: str, hardware: Hardware | None) -> None:
    """Fourteen bytes are Ethernet, what comes after them is ignored, fewer are kept as they are."""
    assert denial(f"iptables denied: IN=x OUT= MAC={octets} {IP}{TCP}").hardware == hardware


def test_tunnel_of_a_sit_device() -> None:
    """Kernels whose sit devices have a header length print the outer addresses after it."""
    found = denial(f"iptables denied: IN=sit0 OUT= MAC=45:00 TUNNEL=192.0.2.1->192.0.2.2 {IP6}{TCP}")
    assert found.hardware is not None
    assert found.hardware.tunnel == ("192.0.2.1", "192.0.2.2")
    assert denial_fields(found)["tunnel_dst"] == "192.0.2.2"


def test_decoded_link_layer_header_with_vlan() -> None:
    """The decoded form names the VLAN; the kernel's VID= is the whole tag word, which we take apart."""
    decoded = "MACSRC=02:00:00:00:00:02 MACDST=02:00:00:00:00:01 VPROTO=8100 VID=40965 MACPROTO=0800 "
    found = denial(f"iptables denied: IN=x OUT= {decoded}{IP}{TCP}")
    assert found.hardware == Hardware(
        "02:00:00:00:00:02", "02:00:00:00:00:01", 0x0800, vlan_protocol=0x8100, vlan=5, vlan_priority=5
    )


def test_repeated_keys_keep_their_places() -> None:
    """ID, LEN, SEQ and ACK occur twice in lines; each belongs to the layer that it stands in."""
    found = denial(f"iptables denied: {LINK}{IP}PROTO=ICMP TYPE=8 CODE=0 ID=1 SEQ=2 ")
    assert isinstance(found.network, IPv4)
    assert found.network.ident == 4711
    assert found.transport == Icmp("icmp", 8, 0, ident=1, seq=2)
    found = denial(f"iptables denied: {LINK}{IP}{TCP.replace('WINDOW', 'SEQ=7 ACK=8 WINDOW').replace('SYN', 'ACK')}")
    assert isinstance(found.transport, Tcp)
    assert (found.transport.seq, found.transport.ack, found.transport.flags) == (7, 8, ("ACK",))


def test_fragment_offsets_are_bytes_in_both_families() -> None:
    """The kernel prints units of eight for IPv4 and bytes for IPv6; values are bytes for both."""
    four = denial(f"iptables denied: {LINK}{IP}FRAG:185 PROTO=UDP ")
    six = denial(f"iptables denied: {LINK}{IP6}FRAG:1480 ID:0000cafe PROTO=UDP ")
    assert denial_fields(four)["frag"] == denial_fields(six)["frag"] == 1480
    assert four.transport == six.transport == Bare("udp")
    assert sentence(four).startswith("denied UDP fragment 203.0.113.9 → ")


def test_incomplete_in_ipv6_is_more_fragments() -> None:
    """The bare word INCOMPLETE among IPv6 extension headers means that more fragments follow, not that bytes lack."""
    found = denial(f"iptables denied: {LINK}{IP6}FRAG:0 INCOMPLETE ID:0000cafe {TCP}")
    assert isinstance(found.network, IPv6)
    assert found.network.extensions == (FragmentHeader(0, more=True, ident=0xCAFE),)
    assert found.extent is Extent.WHOLE


def test_silence_after_ipv6_is_esp() -> None:
    """Without --log-ip-options the kernel stops at ESP without a word: nothing else ends a whole line there."""
    found = denial(f"iptables denied: {LINK}{IP6}")
    assert found.transport == Ipsec("esp", None)
    assert found.extent is Extent.WHOLE


def test_silence_after_a_later_fragment_is_unknown() -> None:
    """After a later fragment's header silence may be ESP or options: nothing is claimed."""
    found = denial(f"iptables denied: {LINK}{IP6}FRAG:8 ID:0000cafe ")
    assert found.transport is None
    assert found.proto is None
    assert sentence(found) == "denied IPv6 fragment 2001:db8::2 → 2001:db8::1 in eth0"


def test_options_header_of_a_later_fragment() -> None:
    """With --log-ip-options the same ends with an empty bracket and no blank."""
    text = f"iptables denied: {LINK}{IP6}OPT ( FRAG:8 ID:0000cafe ) OPT ( )"
    found = denial(text)
    assert isinstance(found.network, IPv6)
    assert found.network.extensions == (FragmentHeader(8, more=False, ident=0xCAFE), OptionsHeader())
    assert found.transport is None


@pytest.mark.parametrize("size", ["4294967289", "4294967295", "2147483648"])
def test_wrapped_size_is_none_at_all(size: str) -> None:
    """A header that begins past the packet's end makes the kernel's unsigned difference wrap: no bytes were there."""
    found = denial(f"iptables denied: {LINK}{IP}PROTO=UDP INCOMPLETE [{size} bytes] ")
    assert found.transport == Incomplete("udp", 0)
    assert found.extent is Extent.SHORT_PACKET


def test_pipeline() -> None:
    """Owner and mark of the packet, in the order of the kernel's."""
    found = denial(f"[Output Log] IN= OUT=eth0 {IP}{TCP}UID=1000 GID=100 MARK=0xff ")
    assert (found.owner, found.mark) == (SocketOwner(1000, 100), 255)
    assert denial_fields(found)["uid"] == 1000


def test_root_and_zero_are_present() -> None:
    """Zero is a value: user 0, TTL 0 and port 0 are in the event."""
    text = f"[Output Log] IN= OUT=eth0 {IP.replace('TTL=51', 'TTL=0')}PROTO=UDP SPT=0 DPT=0 LEN=0 UID=0 GID=0 "
    shown = denial_fields(denial(text))
    assert [shown[key] for key in ("uid", "gid", "ttl", "spt", "dpt", "udp_len")] == [0] * 6


def cut_line(fragments: int, rest: str) -> str:
    """What the kernel's buffer holds of a line with so many fragment headers."""
    return (f"iptables denied: {LINK}{IP6}" + "FRAG:0 ID:0000cafe " * fragments + rest)[:1016]


def test_cut_line_keeps_what_came_before_the_cut() -> None:
    """A line that filled the kernel's buffer is a denial with what stands before the cut, and says that it was cut."""
    found = denial(cut_line(41, TCP))
    assert (found.src, found.dst, found.proto, found.dpt) == ("2001:db8::2", "2001:db8::1", "tcp", None)
    assert found.extent is Extent.CUT_LINE
    assert denial_fields(found)["extent"] == "cut-line"
    assert sentence(found).endswith("(line cut by the kernel)")


def test_line_cut_between_words_is_no_esp() -> None:
    """A full buffer that ends after an extension header has no field of what followed."""
    for end in range(976, 1017):
        found = READER.read(cut_line(60, "")[:end])
        assert isinstance(found, Denial)
        assert found.transport is None
        assert found.extent is Extent.CUT_LINE


def test_long_line_that_ends_well_is_whole() -> None:
    """Length alone does not make a cut: what the kernel could print in full is read in full."""
    text = cut_line(38, "")[: len(f"iptables denied: {LINK}{IP6}") + 38 * 19] + TCP
    assert 900 < len(text) < 1016
    assert denial(text).extent is Extent.WHOLE
    assert denial(text).dpt == 23


def test_cut_does_not_excuse_a_foreign_middle() -> None:
    """Only the end of a line can be cut; what is not the kernel's earlier on stays unparsed, however long the line."""
    text = cut_line(20, "SRC=6.6.6.6 " + "FRAG:0 ID:0000cafe " * 60)
    assert len(text) == 1016
    assert isinstance(READER.read(text), Unparsed)


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("0000:0000:0000:0000:0000:0000:0000:0000", "::"),
        ("0000:0000:0000:0000:0000:0000:0000:0001", "::1"),
        ("fe80:0000:0000:0000:5054:00ff:fe12:3456", "fe80::5054:ff:fe12:3456"),
        ("2001:0db8:0000:0001:0001:0001:0001:0001", "2001:db8:0:1:1:1:1:1"),
        ("2001:0000:0000:0001:0000:0000:0000:0001", "2001:0:0:1::1"),
        ("2001:0db8:0000:0000:0001:0000:0000:0001", "2001:db8::1:0:0:1"),
        ("ff02:0000:0000:0000:0000:0000:0000:0000", "ff02::"),
        ("0000:0000:0000:0000:0000:ffff:0a09:0001", "::ffff:10.9.0.1"),
        ("1000:0200:0030:0004:5000:0600:0070:0008", "1000:200:30:4:5000:600:70:8"),
    ],
)
def test_ipv6_compression(full: str, short: str) -> None:
    """RFC 5952, sections 4 and 5."""
    assert compress_ipv6(full) == short


def test_kernel_spelling() -> None:
    """Control bytes, the backslash and all from 0x7f on are escaped in lower-case hexadecimal."""
    assert kernel_escaped(b"a\\b\n\x7f\xff ~") == r"a\x5cb\x0a\x7f\xff ~"
    assert escaped_length(r"a\x5cb\x0a\x7f\xff ~") == 8


def test_icmp_type_names() -> None:
    """The two protocols number their types differently; a type without a name in use has none."""
    assert [icmp_type_name("icmp", number) for number in (8, 11, 128)] == ["echo-request", "time-exceeded", None]
    assert [icmp_type_name("ipv6-icmp", number) for number in (128, 8)] == ["echo-request", None]


def test_values_are_frozen() -> None:
    """A denial is a fact about the past: nothing may change it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        denial(SYN).mark = 1  # type: ignore[misc]
