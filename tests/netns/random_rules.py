"""Random rules and random packets that often meet them, for comparisons of a bed with a real host."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import SYN, ConnectionState, Direction, Packet
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    import random

WORLD: Final = {Family.IPV4: ("198.51.100.", "203.0.113."), Family.IPV6: ("2001:db8:51::", "2001:db8:113::")}
INSIDE: Final = {Family.IPV4: ("10.1.2.", "10.2.3."), Family.IPV6: ("2001:db8:102::", "2001:db8:103::")}
HOST: Final = {
    Family.IPV4: {"eth0": "192.0.2.1", "eth1": "10.1.0.1"},
    Family.IPV6: {"eth0": "2001:db8:1::1", "eth1": "2001:db8:2::1"},
}
LENGTHS: Final = {Family.IPV4: (8, 16, 24, 25, 28, 32), Family.IPV6: (32, 48, 64, 120, 128)}
PORTS: Final = (22, 53, 80, 443, 5432, 8080)
CHAINS: Final = ("one", "two", "three")
HOOKS: Final = {
    Direction.INBOUND: {"raw": ("PREROUTING",), "mangle": ("PREROUTING", "INPUT"), "nat": ("PREROUTING",)},
    Direction.FORWARDED: {
        "raw": ("PREROUTING",),
        "mangle": ("PREROUTING", "FORWARD"),
        "nat": ("PREROUTING", "POSTROUTING"),
    },
    Direction.OUTBOUND: {"raw": ("OUTPUT",), "mangle": ("OUTPUT", "POSTROUTING"), "nat": ("POSTROUTING",)},
}
FILTER: Final = {Direction.INBOUND: "INPUT", Direction.FORWARDED: "FORWARD", Direction.OUTBOUND: "OUTPUT"}


def random_rules(chance: random.Random, family: Family, direction: Direction) -> str:
    """A ruleset for iptables-restore, whose rules are in chains that packets of this direction traverse."""
    lines: list[str] = []
    for table, hooks in HOOKS[direction].items():
        if chance.random() < 0.6:
            lines += _table(chance, family, table, hooks, 4)
    lines += _table(chance, family, "filter", (FILTER[direction],), 14)
    return "\n".join(lines) + "\n"


def _table(chance: random.Random, family: Family, table: str, hooks: tuple[str, ...], most: int) -> list[str]:
    policies = [f":{hook} {_policy(chance, table)}" for hook in hooks]
    chains = CHAINS[: chance.randrange(len(CHAINS) + 1)]
    lines = [f"*{table}", *policies, *[f":{chain} -" for chain in chains]]
    for place, chain in enumerate((*hooks, *chains)):
        deeper = chains[max(0, place - len(hooks) + 1) :]
        if table == "nat" and chain == "POSTROUTING":
            deeper = ()  # The other chains have targets of PREROUTING.
        hook = hooks[min(place, len(hooks) - 1)]
        if place >= len(hooks):
            hook = hooks[0]
        targets = (family, table, chain, hook, deeper)
        rules = (
            f"{_matches(chance, family, hook)}{_target(chance, *targets)}" for _ in range(chance.randrange(1, most))
        )
        lines += [f"-A {chain} {rule}" for rule in rules]
    return [*lines, "COMMIT"]


def _policy(chance: random.Random, table: str) -> str:
    if table != "filter":
        return "ACCEPT"
    return chance.choice(["ACCEPT", "DROP"])


def _matches(chance: random.Random, family: Family, hook: str) -> str:
    parts: list[str] = []
    if chance.random() < 0.4:
        parts.append(f"{_not(chance)}-s {_network(chance, family)} ")
    if chance.random() < 0.3:
        parts.append(f"{_not(chance)}-d {_network(chance, family)} ")
    if chance.random() < 0.25:
        parts.append(_interface(chance, hook))
    parts.append(_protocol(chance, family))
    if chance.random() < 0.2:
        states = chance.sample(["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"], chance.randrange(1, 4))
        parts.append(f"-m conntrack {_not(chance)}--ctstate {','.join(states)} ")
    if chance.random() < 0.15:
        parts.append(f"-m mark {_not(chance)}--mark {chance.randrange(3):#x}/0x3 ")
    if chance.random() < 0.1:
        parts.append("-m limit --limit 1000/sec --limit-burst 5000 ")
    if chance.random() < 0.1:
        parts.append(f"-m addrtype {_not(chance)}--dst-type LOCAL ")
    return "".join(parts)


def _not(chance: random.Random) -> str:
    return "! " if chance.random() < 0.25 else ""


def _network(chance: random.Random, family: Family) -> str:
    pools = [*WORLD[family], *INSIDE[family], *HOST[family].values()]
    start = chance.choice(pools)
    if start[-1] in ".:":
        start += str(chance.randrange(1, 9))
    return f"{start}/{chance.choice(LENGTHS[family])}"


def _interface(chance: random.Random, hook: str) -> str:
    name = chance.choice(["eth0", "eth1", "eth+", "lo"])
    incoming = hook in ("PREROUTING", "INPUT") or (hook == "FORWARD" and chance.random() < 0.5)
    return f"{_not(chance)}-{'i' if incoming else 'o'} {name} "


def _protocol(chance: random.Random, family: Family) -> str:
    icmp = {Family.IPV4: "icmp", Family.IPV6: "ipv6-icmp"}[family]
    protocol = chance.choice(["", "", "tcp", "tcp", "tcp", "udp", "udp", icmp, "sctp", "47"])
    if not protocol:
        return ""
    text = f"-p {protocol} "
    if protocol in ("tcp", "udp", "sctp"):
        text += _ports(chance, protocol)
    if protocol == "tcp" and chance.random() < 0.2:
        text += chance.choice(["--syn ", "! --syn ", "--tcp-flags SYN,RST,ACK ACK ", "--tcp-flags ALL FIN "])
    if protocol == icmp and chance.random() < 0.5:
        text += {Family.IPV4: "--icmp-type 8 ", Family.IPV6: "--icmpv6-type 128 "}[family]
    return text


def _ports(chance: random.Random, protocol: str) -> str:
    first = chance.choice(PORTS)
    kind = chance.randrange(5)
    if kind == 0:
        return ""
    if kind == 1:
        return f"-m multiport {_not(chance)}--dports {first},{chance.choice([1000, 2000, 53])},8000:9000 "
    if kind == 2:
        return f"{_not(chance)}--dport {first}:{first + chance.randrange(500)} "
    if kind == 3 and protocol != "sctp":
        return f"{_not(chance)}--sport 1024:{chance.choice([1100, 40000, 65535])} "
    return f"{_not(chance)}--dport {first} "


def _target(chance: random.Random, family: Family, table: str, chain: str, hook: str, deeper: tuple[str, ...]) -> str:
    if deeper and chance.random() < 0.25:
        return f"-{chance.choice('jjg')} {chance.choice(deeper)}"
    if chain in CHAINS and chance.random() < 0.2:
        return "-j RETURN"
    if chance.random() < 0.1:
        return ""
    mark = f"-j MARK --set-xmark {chance.randrange(3):#x}/0x3"
    choices = {
        "raw": ["-j CT --notrack", "-j ACCEPT", "-j DROP", ""],
        "mangle": [mark, "-j ACCEPT", "-j DROP", ""],
        "nat": [_nat(chance, family, hook)],
        "filter": ["-j ACCEPT", "-j ACCEPT", "-j DROP", "-j REJECT", "-j LOG --log-prefix never:"],
    }
    return chance.choice(choices[table])


def _nat(chance: random.Random, family: Family, hook: str) -> str:
    if chance.random() < 0.3:
        return "-j ACCEPT"
    if hook == "PREROUTING":
        return chance.choice([f"-j DNAT --to-destination {_inside(chance, family)}", "-j REDIRECT"])
    return chance.choice([f"-j SNAT --to-source {HOST[family]['eth0']}", "-j MASQUERADE"])


def _inside(chance: random.Random, family: Family) -> str:
    """An address that DNAT leads to: behind the host, or its own."""
    return chance.choice([f"{INSIDE[family][0]}7", HOST[family]["eth1"]])


def random_packets(chance: random.Random, family: Family, direction: Direction, count: int) -> list[Packet]:
    """Packets of one direction, each with a source port or a source address of its own."""
    return [_packet(chance, family, direction, number) for number in range(1, count + 1)]


def _packet(chance: random.Random, family: Family, direction: Direction, number: int) -> Packet:
    icmp = {Family.IPV4: "icmp", Family.IPV6: "icmpv6"}[family]
    protocol = chance.choice(["tcp", "tcp", "tcp", "udp", "udp", icmp, "sctp", "47"])
    if protocol == "47" and direction is Direction.FORWARDED and number > 1:
        protocol = "udp"  # Source NAT cannot tell two of them apart, and the kernel drops the second.
    inside = chance.random() < 0.5
    in_interface, out_interface = "eth0", "eth1"
    source, destination = _address(chance, WORLD[family]), _address(chance, INSIDE[family])
    if inside:
        in_interface, out_interface, source, destination = out_interface, in_interface, destination, source
    if direction is Direction.INBOUND:
        destination = chance.choice(list(HOST[family].values()))
    if direction is Direction.OUTBOUND:
        source = HOST[family][out_interface]
    ports: tuple[int | None, int | None] = (None, None)
    if protocol in ("tcp", "udp", "sctp"):
        ports = (1024 + 37 * number, chance.choice([*PORTS, chance.randrange(1, 65536)]))
    elif direction is Direction.OUTBOUND:
        destination = (
            f"{destination[: destination.rindex('.' if family is Family.IPV4 else ':') + 1]}{_last(family, number)}"
        )
    else:
        source = f"{source[: source.rindex('.' if family is Family.IPV4 else ':') + 1]}{_last(family, number)}"
    return Packet(
        family,
        protocol,
        ip_address(source),
        ip_address(destination),
        *ports,
        {Direction.OUTBOUND: None}.get(direction, in_interface),
        {Direction.INBOUND: None}.get(direction, out_interface),
        _state(chance, protocol),
        flags=chance.choice([SYN, SYN, frozenset({"ACK"}), frozenset({"FIN", "ACK"}), frozenset({"FIN"})]),
        mark=0,
        fragment=False,
    )


def _last(family: Family, number: int) -> str:
    if family is Family.IPV4:
        return str(10 + number % 240)
    return f"{number + 16:x}"


def _address(chance: random.Random, starts: tuple[str, ...]) -> str:
    return f"{chance.choice(starts)}{chance.randrange(1, 9)}"


def _state(chance: random.Random, protocol: str) -> ConnectionState:
    if protocol == "47" or chance.random() < 0.7:
        return ConnectionState.NEW
    return chance.choice([ConnectionState.ESTABLISHED, ConnectionState.RELATED])
