"""The fields of events: name, type, meaning and unit; and those that several kinds of event share.

In the journal a field is called ``FWGUARD_`` and its name in capitals; with ``--log json`` it has its own name.

This module is pure.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from fwguardd.values import dataclass


class FieldType(Enum):
    """What the values of a field are."""

    TEXT = "text"
    NUMBER = "number"
    """A whole number, 0 or more."""
    LIST = "list"
    """Texts; in the journal the field stands once for each of them."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an event. ``order`` is the fixed order of the elements of a list, where it has one: journald keeps all
    values of a field, but not their order."""

    name: str
    type: FieldType
    meaning: str
    unit: str = ""
    order: tuple[str, ...] = ()


def text(name: str, meaning: str, unit: str = "") -> Field:
    """A field that holds a text."""
    return Field(name, FieldType.TEXT, meaning, unit)


def number(name: str, meaning: str, unit: str = "") -> Field:
    """A field that holds a whole number."""
    return Field(name, FieldType.NUMBER, meaning, unit)


def list_of(name: str, meaning: str, order: tuple[str, ...] = ()) -> Field:
    """A field that holds texts; see `Field` for their order."""
    return Field(name, FieldType.LIST, meaning, order=order)


REVISION: Final = number("revision", "The revision that the event is about; 0 means none.")
RULES: Final = number("rules", "The number of rules in the revision, IPv4 and IPv6 together.")
CAUSE: Final = text("cause", "What started the pass, such as start, change or reload.")
CHANGES: Final = number("changes", "The number of differences that were found or written.")
DIFFERENCES: Final = list_of("difference", "One difference: a rule, chain or policy that was added or removed.")
REASON: Final = text("reason", "Why, in words.")
CODE: Final = text("code", "The code of the first finding, as in the manual.")
FILE: Final = text("file", "The rule file and line of the first finding.")
STATE: Final = text(
    "state",
    "What the kernel holds after it, as in fwguardctl status: in-force, drifted, emergency, open, unverified or "
    "unmanaged.",
)
FILES: Final = text("files", "What became of the rule files: applied, refused, held, waiting or settling.")
TRACEBACK: Final = text("traceback", "The Python traceback of the defect.")
AUTHORS: Final = (
    text("culprit", "The processes that changed the rules, in words; empty where they are unknown."),
    number("culprit_pid", "The process id of the first of them that still ran; 0 means that the kernel named none."),
    text("culprit_process", "The name of that process."),
    text("culprit_command", "Its command line, quoted as for a shell."),
    number("culprit_uid", "Its real user id."),
    text("culprit_user", "The name of its user."),
    text("culprit_unit", "The systemd unit or container that it ran in."),
    number("culprit_parent_pid", "The process id of its parent."),
    text("culprit_parent", "The name of its parent."),
    text("culprit_parent_command", "The command line of its parent."),
    text("culprit_parent_user", "The name of the user of its parent."),
    text("culprit_parent_unit", "The systemd unit or container of its parent."),
)
SET: Final = (
    text("set", "The name of the set, as rules give it."),
    number("entries", "The number of entries, IPv4 and IPv6 together."),
    CODE,
    text("file", "The set file, with the line of the first error."),
)
PREFIX: Final = (
    text("name", "The name of the prefix in the settings."),
    text("prefix", "The log prefix of the rule."),
    text("meaning", "What the settings say the prefix means: denied, logged or allowed."),
)
FLOW: Final = (
    text("in", "The device that the packet came in by."),
    text("out", "The device that the packet goes out by."),
    text("src", "The source address; of ARP, the address of the sender."),
    text("dst", "The destination address; of ARP, the address of the target."),
    text("proto", "The protocol over IP: tcp, udp, udplite, icmp, ipv6-icmp, ah, esp, or its number."),
    number("dpt", "The destination port."),
    number("icmp_type", "The ICMP type."),
)
RULE: Final = text("rule", "The rule file and line of the rule that logged, where no other rule has its prefix.")
LINE: Final = text("line", "The kernel line, with odd bytes escaped as in /dev/kmsg.")
KMSG_SEQ: Final = number("kmsg_seq", "The number of the line in the kernel log.")
SUMMARY: Final = (
    number("count", "The number of packets that a summary or a repeated line stands for."),
    text("first", "When the first of them was logged.", "ISO 8601, UTC"),
    text("last", "When the last of them was logged.", "ISO 8601, UTC"),
)
TIME: Final = text("time", "When the packet was logged, if it was read later.", "ISO 8601, UTC")
UNPARSED: Final = (
    LINE,
    text("expected", "What the grammar expects where the line differs."),
    KMSG_SEQ,
    TIME,
    RULE,
    *PREFIX,
    *SUMMARY,
)
PACKET: Final = (
    *PREFIX,
    *FLOW,
    RULE,
    text("family", "The kind of packet: ipv4, ipv6, arp or other."),
    text("physin", "The bridge port that the packet came in by."),
    text("physout", "The bridge port that the packet goes out by."),
    text("mac_src", "The source MAC address."),
    text("mac_dst", "The destination MAC address."),
    text("mac", "The link-layer header of a device that is not Ethernet.", "hexadecimal"),
    text("ethertype", "The ethertype.", "hexadecimal"),
    number("vlan", "The VLAN id."),
    text("tunnel_src", "The outer source address of a tunnel device."),
    text("tunnel_dst", "The outer destination address of a tunnel device."),
    number("len", "The length of the IP packet.", "bytes"),
    number("ttl", "The time to live or the hop limit.", "hops"),
    number("tos", "The TOS byte or the traffic class, as far as the kernel prints it."),
    number("id", "The IP identification; of IPv6, that of the fragment header."),
    list_of("ip_flags", "One IP flag: CE (the reserved bit), DF or MF.", ("CE", "DF", "MF")),
    number("frag", "The offset of the fragment.", "bytes"),
    text("ip_options", "The IP options.", "hexadecimal"),
    number("flow_label", "The IPv6 flow label."),
    number("spt", "The source port."),
    list_of("flags", "One TCP flag.", ("AE", "CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN")),
    number("window", "The TCP window."),
    number("seq", "The TCP sequence number."),
    number("ack", "The TCP acknowledgement number."),
    number("urgent", "The TCP urgent pointer.", "bytes"),
    text("tcp_options", "The TCP options.", "hexadecimal"),
    number("udp_len", "The length in the UDP header.", "bytes"),
    number("spi", "The security parameter index of AH or ESP."),
    number("icmp_code", "The ICMP code."),
    text("icmp_name", "The name of the ICMP type, as iptables spells it."),
    number("icmp_id", "The identifier of an echo request or reply."),
    number("icmp_seq", "The sequence number of an echo request or reply."),
    number("icmp_pointer", "The offset that a parameter problem points to.", "bytes"),
    text("gateway", "The gateway of a redirect."),
    number("mtu", "The MTU in an ICMP error.", "bytes"),
    text("inner_src", "The source address of the packet that an ICMP error quotes."),
    text("inner_dst", "The destination address of that packet."),
    text("inner_proto", "The protocol of that packet."),
    number("inner_spt", "The source port of that packet."),
    number("inner_dpt", "The destination port of that packet."),
    number("arp_operation", "The ARP operation: 1 is a request, 2 a reply."),
    text("arp_mac_src", "The MAC address of the ARP sender."),
    text("arp_mac_dst", "The MAC address of the ARP target."),
    number("available", "How much there was of a header that was too short.", "bytes"),
    number("mark", "The packet mark."),
    number("uid", "The user id of the local process that sent the packet."),
    number("gid", "The group id of that process."),
    text("extent", "What is incomplete: short-packet, cut-line or cut-copy; a complete event lacks the field."),
    LINE,
    text("packet", "The first bytes of a packet that an NFLOG rule copied.", "hexadecimal"),
    KMSG_SEQ,
    TIME,
    SUMMARY[0],
)
LOST: Final = list_of("lost", "One rule that another program has lost with it.")
OF_OTHERS: Final = list_of("others", "One rule of another program, or a chain with all that is in it.")
DAEMON: Final = (
    text("version", "The version of fwguardd."),
    text("backend", "The backend of iptables: nft or legacy."),
    text("iptables", "The version of iptables."),
)
TURNED: Final = (
    number("cut", "The number of connections whose next packet is dropped."),
    number("not_again", "The number of connections that go on, and could not be opened again."),
    number("closed", "The number of listening sockets that cannot be reached any more from some clients."),
    number("opened", "The number of listening sockets that can be reached from more clients."),
    number("undecided", "The number of packets that could not be decided."),
    list_of("turned", "One connection or socket that the change turns, with the rule that decides."),
    list_of("left_out", "What was not tried."),
)
BOOT: Final = (
    text("outcome", "What was loaded: revision, emergency, minimal, or failed for none."),
    text("revision", "The revision that the boot loader was to load."),
    REASON,
    STATE,
)
SUPPRESSED: Final = (
    text("family", "The kind of packet: ipv4, ipv6, arp or other."),
    text("place", "Family, table and chain of the rule."),
    number("count", "Of a limited rule, the number of lines that were suppressed."),
    number("reached", "The number of packets that reached the rule."),
    number("logged", "The number of them that it logged."),
)
SPOOFABLE: Final = text("spoofable", "Always yes: the source address of a packet can be forged.")
SOURCE: Final = text("source", "Where denials are read from: kmsg, journal or nflog.")
