"""Which families a rule can mean: both, unless a word in it exists in one of them only.

A word tells a family when it is an address literal, an ICMP protocol, a reject type, or an extension that iptables
or ip6tables alone has (the ``libipt_`` and ``libip6t_`` modules of xtables). Words that are free text, such as a
comment or a log prefix, tell nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import BOTH, Family

if TYPE_CHECKING:
    from collections.abc import Sequence

IPV4_ONLY = frozenset({Family.IPV4})
IPV6_ONLY = frozenset({Family.IPV6})

FREE_TEXT_OPTIONS = frozenset(
    {
        "--comment",
        "--log-prefix",
        "--nflog-prefix",
        "--string",
        "--hex-string",
        "--name",
        "--helper",
        "--hashlimit-name",
    }
    | {"--match-set", "--add-set", "--del-set", "--map-set", "--bytecode", "--object-pinned", "--nfacct-name", "--u32"}
    | {"-i", "-o", "--in-interface", "--out-interface", "--physdev-in", "--physdev-out", "--label", "--set-label"}
    | {"--oifname", "--iifname", "--path", "--genre", "--led-trigger-id", "--rateest-name", "--rateest1", "--rateest2"}
)
"""Options whose argument is a name or prose: nothing in it says anything about the rule."""

_MODULES = {
    **dict.fromkeys(("icmp", "realm", "ttl"), IPV4_ONLY),
    **dict.fromkeys(
        ("icmp6", "icmpv6", "eui64", "frag", "hbh", "hl", "ipv6header", "mh", "rt", "srh", "dst"), IPV6_ONLY
    ),
}
_TARGETS = {
    **dict.fromkeys(("TTL", "CLUSTERIP", "ECN", "ULOG"), IPV4_ONLY),
    **dict.fromkeys(("HL", "DNPT", "SNPT"), IPV6_ONLY),
}
_PROTOCOLS = {"icmp": IPV4_ONLY, **dict.fromkeys(("icmpv6", "ipv6-icmp", "icmp6"), IPV6_ONLY)}
_REJECT_TYPES = {
    **dict.fromkeys(
        ("net-unreach", "host-unreach", "proto-unreach", "net-prohib", "host-prohib", "admin-prohib"), IPV4_ONLY
    ),
    **dict.fromkeys(("no-route", "adm-prohibited", "addr-unreach", "policy-fail", "reject-route"), IPV6_ONLY),
}
_BY_ARGUMENT = {
    **dict.fromkeys(("-p", "--protocol", "--proto"), _PROTOCOLS),
    **dict.fromkeys(("-m", "--match"), _MODULES),
    **dict.fromkeys(("-j", "--jump", "-g", "--goto"), _TARGETS),
    "--reject-with": _REJECT_TYPES,
}
_BY_OPTION = {
    **dict.fromkeys(("--icmp-type", "-f", "--fragment", "--ttl-set", "--ttl-eq"), IPV4_ONLY),
    **dict.fromkeys(("--icmpv6-type", "--hl-set", "--hl-eq"), IPV6_ONLY),
}

# Every word that can tell a family matches this; most rules hold none, and are spared the word-by-word look.
_HINT = re.compile(
    r"[0-9]\.[0-9]|:[^ \t]*:|icmp|--reject-with|--hl-|--ttl-|--fragment"
    r"|(?:^|[ \t])-f(?:[ \t]|$)"
    r"|(?:-m|--match)[ \t]+(?:realm|ttl|eui64|frag|hbh|hl|ipv6header|mh|rt|srh|dst)(?:[ \t]|$)"
    r"|(?:-j|--jump|-g|--goto)[ \t]+(?:TTL|CLUSTERIP|ECN|ULOG|HL|DNPT|SNPT)(?:[ \t]|$)"
)
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::[0-9-]+)?$")


@dataclass(frozen=True, slots=True)
class MixedFamilies:
    """Two words of one rule that cannot both hold: the first word of each family."""

    ipv4_word: str
    ipv6_word: str


def may_tell_family(text: str) -> bool:
    """Whether any word of the rule text could tell a family; a quick look that errs on the side of yes."""
    return _HINT.search(text) is not None


def infer_families(words: Sequence[str]) -> frozenset[Family] | MixedFamilies:
    """The families that a rule with these words can mean."""
    ipv4_word = ipv6_word = ""
    previous = ""
    for word in words:
        told = BOTH if previous in FREE_TEXT_OPTIONS else _families_of(previous, word)
        if told == IPV4_ONLY:
            ipv4_word = ipv4_word or word
        elif told == IPV6_ONLY:
            ipv6_word = ipv6_word or word
        elif not told:
            return MixedFamilies(word, word)
        previous = word
    if ipv4_word and ipv6_word:
        return MixedFamilies(ipv4_word, ipv6_word)
    if ipv4_word:
        return IPV4_ONLY
    return IPV6_ONLY if ipv6_word else BOTH


def _families_of(option: str, word: str) -> frozenset[Family]:
    """What one word tells; the empty set when a list inside it holds addresses of both families."""
    if word in _BY_OPTION:
        return _BY_OPTION[word]
    arguments = _BY_ARGUMENT.get(option)
    if arguments is not None and word in arguments:
        return arguments[word]
    if option == "--reject-with":
        return _reject_type(word)
    if "." not in word and ":" not in word:
        return BOTH
    told = BOTH
    for part in word.split(","):
        told &= _address_family(part)
    return told


def _reject_type(word: str) -> frozenset[Family]:
    if word.startswith("icmp6-"):
        return IPV6_ONLY
    return IPV4_ONLY if word.startswith("icmp-") else BOTH


def _address_family(text: str) -> frozenset[Family]:
    """The family of an address, network, address range, or address with port; both for anything else."""
    bracketed = _BRACKETED.match(text)
    if bracketed:
        return IPV6_ONLY
    first = text.split("/", 1)[0].split("-", 1)[0]
    if _is_ipv6(first):
        return IPV6_ONLY
    return IPV4_ONLY if _is_ipv4(first.split(":", 1)[0]) else BOTH


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    if ":" not in text:
        return False
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
