"""Rules whose canonical text depends on nothing but themselves, their chain, and the program and kernel that spell it.

A plain rule has numeric addresses and ports, matches and targets without a name, and no jump. It needs nothing outside
of the rule files, no other rule, and no chain: a kernel that takes it alone takes it among others, and prints it in the
same words. Whatever is in doubt is not plain.

This module is pure.
"""

from __future__ import annotations

from fwguardd.patterns import pattern

_ADDRESS = r"(?:[0-9]+(?:\.[0-9]+){3}|[0-9a-f]*:[0-9a-f:]*)(?:/[0-9]+)?"
_PORTS = r"[0-9]+(?::[0-9]+)?"
_WORD = r'(?:"[^"\\]*"|[a-zA-Z0-9_.:/-]+)'
_STATES = r"(?:NEW|ESTABLISHED|RELATED|INVALID|UNTRACKED)"
_FLAGS = r"(?:SYN|ACK|FIN|RST|URG|PSH|ALL|NONE)"
_PARTS = (
    rf"-[sd] {_ADDRESS}(?:,{_ADDRESS})*",
    r"-[io] [a-zA-Z][a-zA-Z0-9_.-]*\+?",
    r"-p (?:tcp|udp|icmp|icmpv6|ipv6-icmp|sctp|all)",
    r"-m (?:tcp|udp|sctp|icmp|icmp6|multiport|conntrack|state|comment|limit)",
    rf"--(?:[ds]port|ctorigdstport) {_PORTS}",
    rf"--(?:[ds]ports|ports) {_PORTS}(?:,{_PORTS})*",
    rf"--(?:ct)?state {_STATES}(?:,{_STATES})*",
    r"--icmp(?:v6)?-type [a-z0-9/-]+",
    rf"--tcp-flags {_FLAGS}(?:,{_FLAGS})* {_FLAGS}(?:,{_FLAGS})*",
    r"--syn",
    rf"--comment {_WORD}",
    r"--limit [0-9]+/(?:sec|second|min|minute|hour|day)",
    r"--limit-burst [0-9]+",
)
_END = rf"-j (?:ACCEPT|DROP|RETURN|REJECT(?: --reject-with [a-z0-9-]+)?|LOG(?: --log-(?:prefix|level) {_WORD})*)"
_BEGINNING = rf"(?:(?:! )?(?:{'|'.join(_PARTS)})(?: (?=.)|$))*"
_PLAIN = pattern(rf"{_BEGINNING}(?:{_END})?")
_JUMP = pattern(rf"{_BEGINNING}-[jg] [^ -][^ ]*")


def is_plain(text: str) -> bool:
    """Whether the canonical text of a rule in a chain, and whether a kernel takes it, depend on nothing else."""
    return _PLAIN.fullmatch(text) is not None


def needs_nothing_outside(text: str) -> bool:
    """Whether a rule means the same whatever names outside of the rule files mean: a plain one, or a jump in place of
    its target."""
    return is_plain(text) or _JUMP.fullmatch(text) is not None
