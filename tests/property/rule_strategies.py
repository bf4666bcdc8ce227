"""Rule files and rulesets as hypothesis makes them, for the property tests and the contract tests of the language."""

from __future__ import annotations

from functools import cache
from itertools import permutations

from hypothesis import strategies as st

from fwguardd.ruleset.model import BUILTIN_CHAINS, Chain, Counters, Family, Rule, Ruleset, Table
from fwguardd.ruleset.tokenizer import quote

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
PROSE = st.one_of(
    PRINTABLE,
    st.text(st.characters(blacklist_categories=("Cc", "Cs", "Cf", "Zl", "Zp")), max_size=12),
    st.sampled_from(["10.0.0.1", "2001:db8::1", "icmp", "-p icmp", "from 192.0.2.1", "-j TTL", "a # b", "", "-s 10/8"]),
)
ANY_FAMILY = """
-p tcp
-p udp --dport 53
-i lo
! -i eth0
-o eth+
-m conntrack --ctstate NEW,RELATED
-m mac --mac-source 00:11:22:33:44:55
-m time --timestart 08:00:00
-m limit --limit 5/min
-m owner --uid-owner 0
-m statistic --mode random --probability 0.5
-m connmark --mark 0x1/0xff
-m cpu --cpu 0
-p tcp --dports 80,443,1000:2000
-s host.example
--to-ports 80-90
--reject-with tcp-reset
""".strip().splitlines()
IPV4_LITERALS = """
-s 10.0.0.1
-d 10/8
-s 192.168/16,10.1.2.3
! -d 192.0.2.0/24
--src 0.0.0.0/0
--destination 0/0
-s "10.9.8.7"
-s 10.0.0.1/255.0.0.255
--to-destination 10.0.0.1:80
--to-destination=192.0.2.1
--to-source 192.0.2.1-192.0.2.9:1024-2048
--to-destination 192.0.2.1:80-90/8080
-m iprange --src-range 10.0.0.1-10.0.0.9
-m recent --update --name SSH --mask 255.255.255.0
""".strip().splitlines()
IPV6_LITERALS = """
-s 2001:db8::1
-d fe80::/10
-s 2001:db8::1,fc00::/7
! -d ::1/128
--src ::/0
-d ::ffff:192.0.2.1
-s "fe80::1"
-d fe80::1/ffff:ffff::
--to-destination [2001:db8::1]:80
--to-destination=2001:db8::1
--to-source [2001:db8::1-2001:db8::9]:1024-2048
--on-ip ::1
-m iprange --dst-range 2001:db8::1-2001:db8::9
""".strip().splitlines()
IPV4_WORDS = """
-p icmp
-p ICMP
--protocol icmp
-m icmp --icmp-type 8
-m ttl --ttl-lt 5
-m realm --realm 1
-f
! --fragment
-j TTL --ttl-set 1
-j REJECT --reject-with icmp-host-prohibited
-j REJECT --reject-with admin-prohib
""".strip().splitlines()
IPV6_WORDS = """
-p ipv6-icmp
-p icmpv6
--proto IPv6-ICMP
-m icmp6 --icmpv6-type 128
-m hl --hl-eq 255
-m rt --rt-type 0
-m frag --fragid 1
-m eui64
-j HL --hl-set 1
-j REJECT --reject-with icmp6-adm-prohibited
-j REJECT --reject-with no-route
""".strip().splitlines()
TARGETS = st.sampled_from(("-j ACCEPT", "-j DROP", "-g WEB", "-j WEB", "-j RETURN", ""))


@st.composite
def free_texts(draw: st.DrawFn) -> str:
    """An option whose argument is prose or a name, with anything in it."""
    option = draw(st.sampled_from(("-m comment --comment", "-j LOG --log-prefix", "-j NFLOG --nflog-prefix")))
    prose = draw(PROSE)
    if prose.isascii():
        return f"{option} {quote(prose)}"
    # Outside of quotes some of what is not ASCII would be taken for a slip of the pen.
    escaped = prose.replace("\\", "\\\\").replace('"', '\\"')
    return f'{option} "{escaped}"'


@st.composite
def rule_texts(draw: st.DrawFn, *, family: Family | None = None) -> str:
    """The text of a rule that means this family, or both."""
    parts = draw(st.lists(st.one_of(st.sampled_from(ANY_FAMILY), free_texts()), max_size=3))
    if family is Family.IPV4:
        parts.append(draw(st.sampled_from(IPV4_LITERALS + IPV4_WORDS)))
    elif family is Family.IPV6:
        parts.append(draw(st.sampled_from(IPV6_LITERALS + IPV6_WORDS)))
    return " ".join([*draw(st.permutations(parts)), draw(TARGETS)]).strip()


@st.composite
def rule_lines(draw: st.DrawFn) -> str:
    """A line that adds a rule, in one of the ways in which people write one."""
    family = draw(st.sampled_from((None, None, Family.IPV4, Family.IPV6)))
    before = draw(st.sampled_from(("", "", "", "iptables ", "/sbin/iptables ", "[7:420] ", "-t mangle ")))
    if draw(st.integers(0, 5)) == 0:
        before += {None: "", Family.IPV4: "-4 ", Family.IPV6: "-6 "}[family]
    chain = draw(st.sampled_from(("INPUT", "FORWARD", "OUTPUT", "WEB", "chain-2", "Ünï")))
    verb = draw(st.sampled_from(("-A ", "-A ", "-A ", "--append ", "-A", "-I ", "-I ", "--insert=")))
    position = draw(st.sampled_from(("", "", " 1", " 2"))) if "I" in verb or "insert" in verb else ""
    text = draw(rule_texts(family=family))
    if draw(st.booleans()):
        text = text.replace(" ", draw(st.sampled_from(("  ", "\t", " "))), 1)
    after = draw(st.sampled_from(("", "", "", "  ", "\t", " # why – “because”", ' # 5" of rain')))
    return f"{before}{verb}{chain}{position} {text}{after}"


@st.composite
def rule_files(draw: st.DrawFn) -> dict[str, bytes]:
    """The files of a rules directory by name: chains are declared in one, and used in all."""
    declared = [":INPUT DROP [0:0]", "*mangle", ":WEB - [0:0]", "-N chain-2", ":Ünï - [0:0]", "COMMIT"]
    declared += ["*filter", ":WEB - [0:0]", "-N chain-2", ":Ünï", "COMMIT"]
    files = {"50-chains.rules": "\n".join(declared)}
    for name in draw(st.lists(st.sampled_from(("10-a", "40-b", "60-c", "99-d")), unique=True, max_size=3)):
        lines = draw(
            st.lists(st.one_of(rule_lines(), st.sampled_from(("", "# a comment", "*filter", "COMMIT"))), max_size=8)
        )
        files[f"{name}.rules"] = "\n".join(lines) + draw(st.sampled_from(("", "\n")))
    return {name: text.encode() for name, text in files.items()}


# Rulesets as a kernel holds them, for plans. Every text is canonical, so that the real programs print it as it is.
_PLAIN = ("-s 10.0.0.{}/32 -j ACCEPT", "-p tcp -m tcp --dport {} -j DROP", "-m mark --mark 0x{} -j RETURN")
_PLAIN6 = ("-s 2001:db8::{}/128 -j ACCEPT", "-p tcp -m tcp --dport {} -j DROP", "-m mark --mark 0x{} -j RETURN")
PRESERVED = ("DOCKER-USER", "f2b-sshd", "KUBE-X")
OURS = ("web", "log_drop", "chain-3")
_PACKETS = 10
"""Values of a counter. Each draw is dear to hypothesis, so a rule and its counters are one number."""


def _counters(number: int) -> Counters:
    return Counters(number, 90 * number)


COUNTERS = st.integers(0, _PACKETS - 1).map(_counters)


def _ordered_subsets(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sampled_from([some for size in range(len(names) + 1) for some in permutations(names, size)])


_SOME_OF_OURS, _SOME_PRESERVED = _ordered_subsets(OURS), _ordered_subsets(PRESERVED)


@cache
def _rules(family: Family, jumps: tuple[str, ...], most: int) -> st.SearchStrategy[tuple[Rule, ...]]:
    plain = _PLAIN if family is Family.IPV4 else _PLAIN6
    texts = [text.format(number) for text in plain for number in range(1, 4)] + [f"-j {chain}" for chain in jumps]

    def rule(number: int) -> Rule:
        counted, place = divmod(number, len(texts))
        return Rule(texts[place], None, _counters(counted))

    rules = st.integers(0, _PACKETS * len(texts) - 1).map(rule)
    return st.lists(rules, max_size=most).map(tuple)


@st.composite
def kernel_tables(draw: st.DrawFn, name: str, family: Family, *, others: bool) -> Table:
    """A table without loops: built-in chains jump anywhere, others only to chains of the same owner."""
    ours = draw(_SOME_OF_OURS)
    theirs = draw(_SOME_PRESERVED) if others else ()
    chains: dict[str, Chain] = {}
    for chain in BUILTIN_CHAINS[name]:
        policy = draw(st.sampled_from(("ACCEPT", "DROP"))) if name == "filter" else "ACCEPT"
        chains[chain] = Chain(chain, policy, draw(_rules(family, ours + theirs, 8)), None, draw(COUNTERS))
    for place, chain in enumerate(ours):
        chains[chain] = Chain(chain, None, draw(_rules(family, ours[place + 1 :] + theirs, 5)))
    for place, chain in enumerate(theirs):
        chains[chain] = Chain(chain, None, draw(_rules(family, theirs[place + 1 :], 4)))
    return Table(name, chains)


@st.composite
def live_and_wanted(draw: st.DrawFn) -> tuple[Ruleset, Ruleset]:
    """What a kernel holds, with rules and chains of others in it, and what it shall hold. No loop, no missing chain."""
    family = draw(st.sampled_from(tuple(Family)))
    live_names = draw(st.lists(st.sampled_from(("filter", "mangle")), unique=True))
    wanted_names = draw(st.lists(st.sampled_from(("filter", "mangle")), unique=True, min_size=1))
    live = {name: draw(kernel_tables(name, family, others=True)) for name in live_names}
    wanted = {name: draw(kernel_tables(name, family, others=False)) for name in wanted_names}
    return Ruleset(family, live), Ruleset(family, wanted)
