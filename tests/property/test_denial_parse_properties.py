"""What must hold of the line parser for every text, and of every mutation of every corpus line."""

from __future__ import annotations

import ipaddress
import json
from itertools import takewhile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.denials.fields import denial_fields
from fwguardd.denials.grammar import compress_ipv6, escaped_length, kernel_escaped
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, IPv4, IPv6, Meaning, PacketFamily, Tcp, Udp, Unparsed, Watched
from fwguardd.denials.sentences import sentence
from fwguardd.kernel.kmsg import Record, parse_record
from tests.scale import sampled
from tests.waiting import must_end

CORPUS: Final = Path(__file__).parents[1] / "corpus" / "denials"
LINES: Final = sorted(
    {line.split("\t")[2] for line in (CORPUS / "kernel-lines.txt").read_text(encoding="ascii").splitlines()}
)
PREFIXES: Final = json.loads((CORPUS / "prefixes.json").read_text(encoding="ascii"))
CORPUS_READER: Final = LineReader(Watched(name, prefix, Meaning(meaning)) for name, prefix, meaning in PREFIXES)

PREFIX: Final = "iptables denied: "
READER: Final = LineReader([Watched("denied", PREFIX, Meaning.DENIED)])
LINK_WORDS: Final = ("PHYSIN=", "PHYSOUT=", "MAC=", "TUNNEL=", "MACSRC=", "MACDST=", "VPROTO=", "VID=", "MACPROTO=")

kernel_words = st.sampled_from(
    sorted({f"{word} " for line in LINES for word in line.removeprefix(PREFIX).split()} | {"[", "] ", "", " "})
)
device_names = st.binary(min_size=1, max_size=15).filter(
    lambda name: not any(byte in b"\0/:\t\n\v\f\r \xa0" for byte in name) and name not in {b".", b".."}
)
ports = st.integers(0, 65535)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """Reading is total: any text is a denial, an unparsed line or nothing of ours, and never an exception."""
    assert READER.read(text) is None
    assert isinstance(READER.read(PREFIX + text), (Denial, Unparsed))


@given(st.lists(kernel_words, max_size=40).map("".join))
def test_any_row_of_the_kernels_words_is_read(text: str) -> None:
    """The kernel's own words in any order: total too, and whatever is parsed has a message of one printable line."""
    outcome = READER.read(PREFIX + text)
    assert isinstance(outcome, (Denial, Unparsed))
    if isinstance(outcome, Denial):
        assert sentence(outcome).isprintable()
        assert denial_fields(outcome)["family"] in {"ipv4", "ipv6", "arp", "other"}
    else:
        assert len(PREFIX) <= outcome.position <= len(outcome.text)


@pytest.mark.parametrize(
    "replacement", ["", " ", "=", "0", "9", "f", "S", "[", "]", "\\", "\n", "\0", "é", "  ", " SRC=6.6.6.6 "]
)
def test_mutations_of_every_corpus_line_at_every_byte(replacement: str, seed: int) -> None:
    """A line with one byte changed, removed or replaced by words never raises, and never gains a wrong address."""
    for line in LINES:
        for position in sampled(range(len(line)), seed, 4):
            check(line[:position] + replacement + line[position + 1 :])


@pytest.mark.parametrize("insertion", [" ", "IN=", "SRC=6.6.6.6 ", "] ", "\\x00"])
def test_insertions_into_every_corpus_line_at_every_byte(insertion: str, seed: int) -> None:
    """Nothing that is put in between makes the parser raise or report an address that is not in its place."""
    for line in LINES:
        for position in sampled(range(len(line) + 1), seed, 4):
            check(line[:position] + insertion + line[position:])


def test_every_beginning_of_every_corpus_line(seed: int) -> None:
    """A line that ends anywhere never raises, and reports only what stands before the end."""
    for line in LINES:
        for end in sampled(range(len(line)), seed, 4):
            check(line[:end])


def check(text: str) -> None:
    """Read a text; the addresses that come out must be those at their place in it."""
    outcome = CORPUS_READER.read(text)
    if (
        not isinstance(outcome, Denial)
        or outcome.family not in {PacketFamily.IPV4, PacketFamily.IPV6}
        or outcome.network is None
    ):
        return
    source, destination = addresses_in_place(text[len(kernel_escaped(outcome.watched.prefix.encode())) :])
    assert (outcome.src, outcome.dst) == (source, destination), text


def addresses_in_place(text: str) -> tuple[str, str]:
    """The first two words after devices and link layer, found by counting words, which the parser does not do."""
    words = text.split(" ")
    assert words[0].startswith("IN=")
    assert words[1].startswith("OUT=")
    link = list(takewhile(lambda word: word.startswith(LINK_WORDS), words[2:]))
    source, destination = words[2 + len(link) : 4 + len(link)]
    return plain(source.removeprefix("SRC=")), plain(destination.removeprefix("DST="))


def plain(address: str) -> str:
    """An address of the kernel's, as we spell it."""
    return compress_ipv6(address) if ":" in address else address


@given(device_names, st.one_of(st.none(), device_names), st.ip_addresses(v=4), st.ip_addresses(v=4), ports, ports)
def test_hostile_devices_change_nothing_else_ipv4(
    incoming: bytes,
    outgoing: bytes | None,
    src: ipaddress.IPv4Address,
    dst: ipaddress.IPv4Address,
    spt: int,
    dpt: int,
) -> None:
    """Whatever the devices are called, each value of the line is found in its own field, and in no other."""
    names = kernel_escaped(incoming), kernel_escaped(outgoing or b"")
    outcome = READER.read(
        f"{PREFIX}IN={names[0]} OUT={names[1]} MAC= SRC={src} DST={dst} LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=1 "
        f"PROTO=UDP SPT={spt} DPT={dpt} LEN=8 "
    )
    assert isinstance(outcome, Denial)
    assert isinstance(outcome.network, IPv4)
    assert (outcome.devices.incoming, outcome.devices.outgoing) == (names[0], names[1] or None)
    assert (outcome.src, outcome.dst) == (str(src), str(dst))
    assert outcome.transport == Udp("udp", spt, dpt, 8)


@given(device_names, device_names, st.ip_addresses(v=6), st.ip_addresses(v=6), ports, ports)
def test_hostile_bridge_ports_change_nothing_else_ipv6(
    incoming: bytes, port: bytes, src: ipaddress.IPv6Address, dst: ipaddress.IPv6Address, spt: int, dpt: int
) -> None:
    """The same of bridge ports, and of IPv6 addresses, which come out as the standard library compresses them."""
    names = kernel_escaped(incoming), kernel_escaped(port)
    outcome = READER.read(
        f"{PREFIX}IN={names[0]} OUT= PHYSIN={names[1]} MAC= SRC={src.exploded} DST={dst.exploded} LEN=60 TC=0 "
        f"HOPLIMIT=64 FLOWLBL=0 PROTO=TCP SPT={spt} DPT={dpt} WINDOW=1 RES=0x00 ACK SYN URGP=0 "
    )
    assert isinstance(outcome, Denial)
    assert isinstance(outcome.network, IPv6)
    assert (outcome.devices.incoming, outcome.devices.incoming_port) == names
    assert [ipaddress.ip_address(outcome.network.src), ipaddress.ip_address(outcome.network.dst)] == [src, dst]
    assert isinstance(outcome.transport, Tcp)
    assert (outcome.spt, outcome.dpt, outcome.transport.flags) == (spt, dpt, ("ACK", "SYN"))


@given(st.lists(st.sampled_from(["0000", "0001", "0db8", "ffff", "a000"]), min_size=8, max_size=8))
def test_ipv6_is_compressed_as_the_standard_library_does(groups: list[str]) -> None:
    """RFC 5952: lower case, no leading zeros, the first longest run of zeros shortened, never a single group."""
    address = ipaddress.IPv6Address(":".join(groups))
    if address.ipv4_mapped is None:
        assert compress_ipv6(":".join(groups)) == address.compressed
    else:
        assert compress_ipv6(":".join(groups)) == f"::ffff:{address.ipv4_mapped}"


@given(st.binary())
def test_spelling_is_printable_and_keeps_the_length(raw: bytes) -> None:
    """The kernel's spelling of any bytes is printable ASCII, and shows how many bytes it stands for."""
    spelled = kernel_escaped(raw)
    assert spelled.isascii()
    assert spelled.isprintable()
    assert escaped_length(spelled) == len(raw)
    assert spelled.encode().decode("unicode_escape").encode("latin-1") == raw


@given(st.binary())
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    """Reading a record of /dev/kmsg is total, with and without a good header before the bytes."""
    assert isinstance(parse_record(data), (Record, type(None)))
    record = parse_record(b"4,1,2,-;" + data)
    assert record is not None
    assert record.text.isascii()


@pytest.mark.parametrize(
    "piece",
    [
        "IN=",
        "A",
        "\\x41",
        "A\\x41",
        "IN=a OUT=b ",
        "00:",
        "OPT ( ) ",
        "FRAG:0 ID:00000000 ",
        "DF ",
        "SRC=1.2.3.4 ",
        "0",
        "[",
        "[SRC=1.2.3.4 DST=1.2.3.4 LEN=1 TOS=0x00 PREC=0x00 TTL=1 ID=1 PROTO=ICMP TYPE=3 CODE=1 ",
        "01020304",
    ],
)
def test_time_is_linear_in_the_text(piece: str) -> None:
    """A megabyte of the same piece, after every point where a loop of the grammar may begin, is read.

    Were any of them quadratic, it would take hours. The loops are those of regular expressions, whose steps cannot be
    counted, so the test only asks that the reading ends.
    """
    ipv4 = "IN=a OUT= MAC= SRC=1.2.3.4 DST=1.2.3.4 LEN=1 TOS=0x00 PREC=0x00 TTL=1 ID=1 "
    ipv6 = f"IN=a OUT= MAC= SRC={'0000:' * 7}0001 DST={'0000:' * 7}0001 LEN=1 TC=0 HOPLIMIT=1 FLOWLBL=0 "
    beginnings = ["", "IN=", "IN=a OUT=", "IN=a OUT= ", "IN=a OUT= MAC=", ipv4, ipv4 + "OPT (", ipv6]
    beginnings += [ipv4 + "PROTO=ICMP TYPE=3 CODE=1 ", ipv4 + "PROTO=TCP SPT=", ipv6 + "OPT ( "]
    for beginning in beginnings:
        text = PREFIX + beginning + piece * (1_000_000 // len(piece))
        with must_end(f"reading {len(text)} characters"):
            assert isinstance(READER.read(text), (Denial, Unparsed))
