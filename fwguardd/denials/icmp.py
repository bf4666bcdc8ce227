"""Names of ICMP and ICMPv6 types, in iptables' spelling where it has one (`iptables -p icmp -h`).

The tables are IANA's "ICMP Parameters" and "ICMPv6 Parameters". This module refuses to name codes: the number
stands beside the name.

This module is pure.
"""

from __future__ import annotations

from typing import Final

_ICMP: Final[dict[int, str]] = {
    0: "echo-reply",
    3: "destination-unreachable",
    4: "source-quench",
    5: "redirect",
    8: "echo-request",
    9: "router-advertisement",
    10: "router-solicitation",
    11: "time-exceeded",
    12: "parameter-problem",
    13: "timestamp-request",
    14: "timestamp-reply",
    15: "information-request",
    16: "information-reply",
    17: "address-mask-request",
    18: "address-mask-reply",
    30: "traceroute",
    40: "photuris",
    42: "extended-echo-request",
    43: "extended-echo-reply",
}

_ICMPV6: Final[dict[int, str]] = {
    1: "destination-unreachable",
    2: "packet-too-big",
    3: "time-exceeded",
    4: "parameter-problem",
    128: "echo-request",
    129: "echo-reply",
    130: "mld-listener-query",
    131: "mld-listener-report",
    132: "mld-listener-done",
    133: "router-solicitation",
    134: "router-advertisement",
    135: "neighbour-solicitation",
    136: "neighbour-advertisement",
    137: "redirect",
    138: "router-renumbering",
    139: "node-information-query",
    140: "node-information-response",
    141: "inverse-neighbour-solicitation",
    142: "inverse-neighbour-advertisement",
    143: "mld2-listener-report",
    144: "home-agent-discovery-request",
    145: "home-agent-discovery-reply",
    146: "mobile-prefix-solicitation",
    147: "mobile-prefix-advertisement",
    148: "certification-path-solicitation",
    149: "certification-path-advertisement",
    151: "multicast-router-advertisement",
    152: "multicast-router-solicitation",
    153: "multicast-router-termination",
    155: "rpl-control",
    160: "extended-echo-request",
    161: "extended-echo-reply",
}


def icmp_type_name(proto: str, number: int) -> str | None:
    """The name of a type of `icmp` or `ipv6-icmp`, or None when IANA lists none in use."""
    return (_ICMP if proto == "icmp" else _ICMPV6).get(number)
