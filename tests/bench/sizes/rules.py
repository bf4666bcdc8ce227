"""The rulesets that are measured, in the language of each program. Every program accepts the same connections.

A ruleset has N rules, each of which accepts TCP from one IPv4 address to one port. One rule in the middle is in a file
of its own where the program has several files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FILES: Final = 10
"""Files that the rules of fwguardd are spread over, besides that with the rule in the middle."""

CHAINS: Final = 8
"""Chains with one rule each, for changes by another program: repeated changes in one chain would be a fight."""

_ACCEPT_FIRST: Final = ("-i lo -j ACCEPT", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")


@dataclass(frozen=True, slots=True)
class Rules:
    """N rules. Another ``generation`` differs in every rule, another ``edit`` in the port of the rule in the middle."""

    count: int
    generation: int = 0
    edit: int = 0

    def edited(self) -> Rules:
        """The same rules with another port in the middle."""
        return replace(self, edit=self.edit + 1)

    def renewed(self) -> Rules:
        """Other rules altogether."""
        return replace(self, generation=self.generation + 1)

    def accepted(self) -> Sequence[tuple[str, int]]:
        """The address and the port that each rule accepts."""
        first = 10 + self.generation % 100
        found = [
            (f"{first}.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1000 + number % 50000)
            for number in range(self.count)
        ]
        middle = self.count // 2
        found[middle] = (found[middle][0], 60000 + self.edit % 5000)
        return found


def rule_files(rules: Rules) -> Mapping[str, str]:
    """Rule files of fwguardd."""
    lines = [_line(*each) for each in rules.accepted()]
    middle, size = len(lines) // 2, -(-len(lines) // FILES)
    files = {"00-base.rules": _base(), "55-middle.rules": f"{lines[middle]}\n"}
    for number in range(FILES):
        part = [
            line for at, line in enumerate(lines[number * size : (number + 1) * size], number * size) if at != middle
        ]
        files[f"{number}5-part.rules"] = "".join(f"{line}\n" for line in ("# Rules.", *part))
    return files


def _base() -> str:
    lines = ["-P INPUT DROP", *(f"-A INPUT {text}" for text in _ACCEPT_FIRST)]
    for number in range(CHAINS):
        lines += [f":C{number} -", f"-A OUTPUT -d 192.0.2.{number} -j C{number}", f"-A C{number} -j RETURN"]
    return "".join(f"{line}\n" for line in lines)


def _line(address: str, port: int) -> str:
    return f"-A INPUT -s {address} -p tcp --dport {port} -j ACCEPT"


def save_text(rules: Rules) -> str:
    """Input for iptables-restore."""
    return _saved([_line(*each) for each in rules.accepted()])


def save_text_ipv6() -> str:
    """Input for ip6tables-restore: none of the rules is about IPv6."""
    return _saved([])


def _saved(lines: Sequence[str]) -> str:
    head = [
        "*filter",
        ":INPUT DROP",
        ":FORWARD ACCEPT",
        ":OUTPUT ACCEPT",
        *(f"-A INPUT {text}" for text in _ACCEPT_FIRST),
    ]
    return "".join(f"{line}\n" for line in (*head, *lines, "COMMIT"))


def ferm_files(rules: Rules) -> Mapping[str, str]:
    """Configuration of ferm, with the rule in the middle in a file of its own."""
    lines = [f"  saddr {address} proto tcp dport {port} ACCEPT;\n" for address, port in rules.accepted()]
    middle = len(lines) // 2
    head = "chain INPUT {\n  policy DROP;\n  interface lo ACCEPT;\n  mod state state (RELATED ESTABLISHED) ACCEPT;\n"
    before, after = "".join(lines[:middle]), "".join(lines[middle + 1 :])
    return {
        "etc/ferm/ferm.conf": f"domain ip table filter {head}{before}  @include '/etc/ferm/middle.conf';\n{after}}}\n"
        f"domain ip6 table filter {head}}}\n",
        "etc/ferm/middle.conf": lines[middle],
    }


def ufw_files(rules: Rules) -> Mapping[str, str]:
    """The rules of ufw as ``ufw allow`` writes them."""
    chains = [
        *("input", "output", "forward", "logging-input", "logging-output", "logging-forward"),
        *("limit", "limit-accept", "before-input", "before-output", "before-forward"),
    ]
    head = "*filter\n" + "".join(f":ufw-user-{name} - [0:0]\n" for name in chains) + "### RULES ###\n\n"
    lines = [
        f"### tuple ### allow tcp {port} 0.0.0.0/0 any {address} in\n"
        f"-A ufw-user-input -p tcp --dport {port} -s {address} -j ACCEPT\n\n"
        for address, port in rules.accepted()
    ]
    return {"etc/ufw/user.rules": f"{head}{''.join(lines)}### END RULES ###\nCOMMIT\n"}


def firewalld_files(rules: Rules) -> Mapping[str, str]:
    """A zone of firewalld with a rich rule for each rule."""
    return {"etc/firewalld/zones/public.xml": "".join(_zone(rules))}


def _zone(rules: Rules) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>\n<zone target="DROP">\n<short>Public</short>\n'
    for address, port in rules.accepted():
        source, to = f'<source address="{address}"/>', f'<port port="{port}" protocol="tcp"/>'
        yield f'<rule family="ipv4">{source}{to}<accept/></rule>\n'
    yield "</zone>\n"


def shorewall_files(rules: Rules) -> Mapping[str, str]:
    """The rules file of Shorewall."""
    lines = [f"ACCEPT net:{address} $FW tcp {port}\n" for address, port in rules.accepted()]
    return {"etc/shorewall/rules": f"?SECTION NEW\n{''.join(lines)}"}


def persistent_files(rules: Rules) -> Mapping[str, str]:
    """The files of netfilter-persistent."""
    return {"etc/iptables/rules.v4": save_text(rules), "etc/iptables/rules.v6": save_text_ipv6()}
