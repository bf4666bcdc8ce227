"""Families: which words tell one, and which only look like it."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.families import (
    IPV4_ONLY,
    IPV6_ONLY,
    MixedFamilies,
    infer_families,
    is_free_text,
    is_plainly_free_text,
    may_imply_family,
    narrowed,
)
from fwguardd.ruleset.model import BOTH
from fwguardd.ruleset.tokenizer import word_values

IPV4 = """
-s 192.0.2.1
-s 192.0.2.1/24
-s 10/8
-s 0/0
-d 192.168/16,10
-s host,10/8
--source 010.1.2.3
--sourc 10/8
--destination=192.0.2.1
--to-destination 192.0.2.1:80-90/8080
--to-source 192.0.2.1-192.0.2.9
--src-range 192.0.2.1-192.0.2.9
-p icmp
-p ICMP
--prot icmp
--protoc icmp
-m icmp
-micmp
--match=icmp
-m ttl
-m osf
-j TTL
-g TTL
-j CLUSTERIP
-f
-fi eth0
--fragment
--ttl-eq 5
--reject-with icmp-port-unreachable
--reject-w host-unreach
--reject-with=net-prohib
""".strip().splitlines()
IPV6 = """
-s 2001:db8::1
-s 2001:DB8::/32,::1
-s ::
-s ::ffff:192.0.2.1
-s fe80::1%eth0
-d fe80::/ffc0::
--to-destination [2001:db8::1]:80
--to-destination [2001:db8::1-2001:db8::9]:80-90
--to-source=2001:db8::1-2001:db8::9
-p ipv6-icmp
-p icmpv6
-p IPV6-ICMP
-p ipv6-mh
-m hl
-m frag
-m dst
-j HL
-j DNPT
--hl-set 64
--icmpv6-type 135
--reject-with icmp6-no-route
--reject-with adm-prohibited
""".strip().splitlines()
NEITHER = """
-s host.example
-s dead.beef
-m mac --mac-source 00:11:22:33:44:55
-m mac --mac-source aa:bb:cc:dd:ee:ff
-m time --timestart 08:00:00 --datestart 2024-01-01T00:00:00
--dports 80:90,100:200
-m owner --uid-owner 1000
-p tcp --dport 10
-p 58
-j LOG
-j a::b
-m a.b.c.d
-g 10.0.0.1
--to-destination :8080
-m statistic --probability 0.5
-m comment --comment 10.0.0.1
-m comment --comment -f
--comm 10.0.0.1
-j LOG --log-prefix icmp --log-level 4
-i 10.0.0.1 -o ::1
--name 10.0.0.1 --rsource
-m u32 --u32 0:1:2::3=4
--reject-with tcp-reset
--selctx system_u:object_r:http_t:s0
""".strip().splitlines()


@pytest.mark.parametrize("text", IPV4)
def test_ipv4_words(text: str) -> None:
    """Address literals of IPv4 in all their spellings, and what iptables has and ip6tables has not."""
    assert infer_families(word_values(text)) == IPV4_ONLY
    assert may_imply_family(text)


@pytest.mark.parametrize("text", IPV6)
def test_ipv6_words(text: str) -> None:
    """Address literals of IPv6, and what ip6tables has and iptables has not."""
    assert infer_families(word_values(text)) == IPV6_ONLY
    assert may_imply_family(text)


@pytest.mark.parametrize("text", NEITHER)
def test_words_that_tell_nothing(text: str) -> None:
    """Names, numbers, MAC addresses, times and prose say nothing, whatever they look like."""
    assert infer_families(word_values(text)) == BOTH


@pytest.mark.parametrize(
    ("text", "mixed"),
    [
        ("-s 10/8 -d ::1", MixedFamilies("10/8", "::1")),
        ("-d ::1 -p icmp", MixedFamilies("icmp", "::1")),
        ("-s 10.0.0.1,::1", MixedFamilies("10.0.0.1,::1", "10.0.0.1,::1")),
        ("-m hl -j TTL", MixedFamilies("TTL", "hl")),
    ],
)
def test_a_mixture_names_the_two_words(text: str, mixed: MixedFamilies) -> None:
    """Two words that contradict each other are both named."""
    assert infer_families(word_values(text)) == mixed


def test_a_second_option_of_prose_is_the_prose_of_the_first() -> None:
    """``--comment --comment X``: the second is what the first takes, so X is a word like any other."""
    words = ("--comment", "--comment", "10.0.0.1")
    assert is_free_text(words, 1) and not is_free_text(words, 2)
    assert infer_families(words) == IPV4_ONLY


def test_prose_is_plain_only_where_no_option_could_swallow_its_own() -> None:
    """``-s --comment X``: iptables takes --comment for an address, and X is no prose at all."""
    assert is_free_text(("-s", "--comment", "X"), 2)
    assert not is_plainly_free_text(("-s", "--comment", "X"), 2)
    assert is_plainly_free_text(("-m", "comment", "--comment", "X"), 3)
    assert is_plainly_free_text(("--comment", "X"), 1)


def test_narrowing_is_both_conditions_at_once() -> None:
    """What a file allows and what a rule means, together; nothing is left where they exclude each other."""
    assert narrowed(BOTH, IPV4_ONLY) is IPV4_ONLY
    assert narrowed(IPV6_ONLY, BOTH) is IPV6_ONLY
    assert narrowed(IPV4_ONLY, IPV4_ONLY) is IPV4_ONLY
    assert not narrowed(IPV4_ONLY, IPV6_ONLY)


def test_hostile_words_are_looked_at_quickly() -> None:
    """No word makes the look at it slower than its length."""
    for word in (":" * 200_000, "1." * 100_000, "1," * 100_000, "[" * 200_000, "a:" * 100_000 + "%" * 1000):
        assert infer_families(("-s", word)) in (BOTH, IPV4_ONLY)
