"""The scenes of the corpus: which devices, which rules, and what is sent, in namespaces that `make_corpus.py` makes."""

from __future__ import annotations

from typing import Final

from tests.corpus.denials.packets import (
    extension,
    fragment,
    icmp_packets,
    ipv4_option_packets,
    ipv4_packets,
    ipv6_packets,
)
from tests.corpus.denials.scene import HOSTILE_NAMES, Scene, connect_tcp, send_udp
from tests.netns.frames import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    HOST,
    HOST6,
    PEER,
    PEER6,
    SYN,
    arp,
    ethernet,
    icmp,
    ipv4,
    ipv6,
    tcp,
    udp,
)


def raw_rules(tool: str, options: str = "") -> tuple[str, ...]:
    """Log whatever comes in, before the kernel looks at it closely, in both families."""
    suffix = "" if tool == "nft" else "-legacy"
    rule = f"-t raw -A PREROUTING -j LOG --log-prefix {{prefix}} {options}"
    return (f"iptables{suffix} {rule}", f"ip6tables{suffix} {rule}")


def framed(packets: dict[str, bytes], suffix: str = "", *, vlan: int | None = None) -> dict[str, bytes]:
    """Packets as Ethernet frames, of the type that their first four bits tell."""
    return {
        name + suffix: ethernet(packet, ETH_IPV6 if packet[0] >> 4 == 6 else ETH_IPV4, vlan=vlan)
        for name, packet in packets.items()
    }


EVERYTHING: Final = "--log-ip-options --log-tcp-options --log-tcp-sequence --log-uid --log-level debug"
ADDRESSES: Final = (
    f"ip addr add {HOST}/24 dev eth0",
    f"ip -6 addr add {HOST6}/64 dev eth0 nodad",
    f"ip neigh add {PEER} lladdr 02:00:5e:10:00:02 dev eth0 nud permanent",
    f"ip -6 neigh add {PEER6} lladdr 02:00:5e:10:00:02 dev eth0 nud permanent",
)
TWO: Final = {"tcp": ipv4(tcp(), 6), "6-udp": ipv6(udp(), 17)}


def plain_scenes() -> list[Scene]:
    """The forms that iptables' own options make."""
    wanted = ("6-udp", "6-tcp-syn", "6-fragment-first", "6-icmp-about-udp")
    few = {name: packet for name, packet in ipv6_packets().items() if name in wanted}
    few |= {name: packet for name, packet in icmp_packets().items() if name.endswith("unreachable")}
    return [
        Scene("plain", raw_rules("nft"), framed(ipv4_packets() | icmp_packets() | ipv6_packets())),
        Scene("options", raw_rules("nft", EVERYTHING), framed(ipv4_option_packets() | ipv6_packets(), " options")),
        Scene("legacy", raw_rules("legacy"), framed(few | TWO, " legacy")),
        Scene("legacy-options", raw_rules("legacy", EVERYTHING), framed(few | TWO, " legacy options")),
        Scene("macdecode", raw_rules("nft", "--log-macdecode"), framed(few | TWO, " macdecode")),
        Scene("tun", raw_rules("nft"), {f"{name} tun": packet for name, packet in TWO.items()}, tun=True),
        Scene(
            "tun-macdecode",
            raw_rules("nft", "--log-macdecode"),
            {f"{name} tun macdecode": packet for name, packet in TWO.items()},
            tun=True,
        ),
        Scene("priority-tag", raw_rules("nft"), framed(TWO, " vlan zero", vlan=0)),
    ]


def path_scenes() -> list[Scene]:
    """The ways through the host: in, through, out, across a bridge."""
    both = ("iptables", "ip6tables")
    log = "-j LOG --log-prefix {prefix}"
    forward = (
        *ADDRESSES,
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        "ip addr add 10.8.0.1/24 dev eth1",
        "ip -6 addr add 2001:db8:8::1/64 dev eth1 nodad",
    )
    through = {"tcp": ipv4(tcp(), 6, dst="10.8.0.9"), "6-udp": ipv6(udp(), 17, dst="2001:db8:8::9")}
    marks = tuple(f"{tool} -t mangle -A PREROUTING -j MARK --set-mark 0xbeef" for tool in both)
    return [
        Scene("input", (*ADDRESSES, *(f"{tool} -A INPUT {log}" for tool in both)), framed(TWO, " input")),
        Scene(
            "forward",
            (*forward, *(f"{tool} -A FORWARD {log}" for tool in both)),
            framed(through, " forward"),
            devices=(b"eth0", b"eth1"),
        ),
        Scene(
            "forward-postrouting",
            # The kernel sends ICMPv6 of its own out of a new device; only what we send is wanted.
            (*forward, *(f"{tool} -t mangle -A POSTROUTING ! -p icmpv6 {log} --log-uid" for tool in both)),
            framed(through, " postrouting"),
            devices=(b"eth0", b"eth1"),
        ),
        Scene(
            "mark",
            (*marks, *(f"{tool} -t mangle -A PREROUTING {log}" for tool in both)),
            framed(_for_mark(), " mark"),
        ),
        _bridge_scene("bridge", "FORWARD", b"\x02\x00\x5e\x10\x00\x77"),
        _bridge_scene("bridge-input", "INPUT", b"\x02\x00\x5e\x10\x00\x01"),
        _bridge_scene("bridge-macdecode", "FORWARD", b"\x02\x00\x5e\x10\x00\x77", "--log-macdecode"),
    ]


def _for_mark() -> dict[str, bytes]:
    """Shapes after which the kernel does, or does not, print the tail."""
    names4: tuple[str, ...] = (
        "tcp-syn",
        "tcp-short",
        "udp-short",
        "fragment-later-tcp",
        "fragment-later-ah",
        "ah-short",
        "esp-short",
    )
    names4 += ("icmp-short", "icmp-short-type-3", "icmp-fragmentation-needed", "protocol-47")
    names6: tuple[str, ...] = (
        "6-tcp-syn",
        "6-udp-short",
        "6-icmp-short",
        "6-esp",
        "6-destination-missing",
        "6-fragment-later-tcp",
    )
    names6 += ("6-icmp-too-big", "6-protocol-59")
    known = ipv4_packets() | icmp_packets() | ipv6_packets()
    return {name: known[name] for name in names4 + names6}


def _bridge_scene(name: str, chain: str, destination: bytes, options: str = "") -> Scene:
    return Scene(
        name,
        (
            "ip link add br0 type bridge",
            "ip link set br0 address 02:00:5e:10:00:01 up",
            "ip link set eth0 master br0",
            "ip link set eth1 master br0",
            f"ip addr add {HOST}/24 dev br0",
            f"ip -6 addr add {HOST6}/64 dev br0 nodad",
            "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
            f"iptables -A {chain} -j LOG --log-prefix {{prefix}} {options}",
            f"ip6tables -A {chain} -s {PEER6} -j LOG --log-prefix {{prefix}} {options}",
        ),
        {
            f"tcp {name}": ethernet(TWO["tcp"], ETH_IPV4, dst=destination),
            f"6-udp {name}": ethernet(TWO["6-udp"], ETH_IPV6, dst=destination),
        },
        devices=(b"eth0", b"eth1"),
    )


def output_scenes() -> list[Scene]:
    """Packets of the host's own, by programs of its own."""
    log = "-A OUTPUT -d {to} -j LOG --log-prefix {{prefix}} --log-uid"
    return [
        Scene(
            "output",
            (*ADDRESSES, "iptables " + log.format(to=PEER), "ip6tables " + log.format(to=PEER6)),
            actions={
                "udp output": lambda: send_udp(PEER),
                "udp output nobody": lambda: send_udp(PEER, user=65534),
                "udp output marked": lambda: send_udp(PEER, mark=0x10),
                "tcp output": lambda: connect_tcp(PEER),
                "6-udp output": lambda: send_udp(PEER6),
                "6-udp output marked nobody": lambda: send_udp(PEER6, mark=0xFFFFFFFF, user=65534),
                "6-tcp output": lambda: connect_tcp(PEER6),
            },
            prefix="[Output Log] ",
        ),
        Scene(
            "loopback",
            ("iptables -A INPUT -p udp -j LOG --log-prefix {prefix}", "ip link set lo up"),
            actions={"udp loopback": lambda: send_udp("127.0.0.1")},
        ),
        Scene(
            "reject",
            (
                *ADDRESSES,
                "iptables -A INPUT -j REJECT",
                "ip6tables -A INPUT -s 2001:db8::/32 -j REJECT",
                "iptables " + log.format(to=PEER),
                "ip6tables " + log.format(to=PEER6),
            ),
            framed({"reject": ipv4(udp(), 17), "6-reject": ipv6(udp(), 17)}),
            prefix="[Output Log] ",
            answered=True,
        ),
    ]


def hostile_scenes() -> list[Scene]:
    """Device names and prefixes that look like something else."""
    scenes = [
        Scene(
            f"name-{number}",
            (*raw_rules("nft", "--log-macdecode" if number % 3 == 2 else "")[: 1 + number % 2],),
            framed(dict(list(TWO.items())[: 1 + number % 2]), f" device {name!r}"),
            devices=(name,),
        )
        for number, name in enumerate(HOSTILE_NAMES)
    ]
    scenes.append(
        Scene(
            "name-both",
            (
                "ip addr add 10.8.0.1/24 dev 'SRC=6.6.6.6'",
                f"ip addr add {HOST}/24 dev 'OUT=x'",
                "sysctl -qw net.ipv4.ip_forward=1",
                "iptables -A FORWARD -j LOG --log-prefix {prefix}",
            ),
            framed({"forward between hostile devices": ipv4(tcp(), 6, dst="10.8.0.9")}),
            devices=(b"OUT=x", b"SRC=6.6.6.6"),
        )
    )
    prefixes = ("IN=eth9 OUT=eth8 ", "SRC=6.6.6.6 DST=", "no-blank", '"quoted" ', "back\\slash ", "100% ", "IN=")
    scenes += [
        Scene(f"prefix-{prefix}", raw_rules("nft"), framed(TWO, f" prefix {prefix!r}"), prefix=prefix)
        for prefix in prefixes
    ]
    return scenes


def nft_scenes() -> list[Scene]:
    """What only nftables' own rules can log: frames before the kernel has looked at them, ARP, packets too short."""
    ingress = (
        "nft add table netdev t",
        "nft 'add chain netdev t c {{ type filter hook ingress device eth0 priority 0; }}'",
    )
    packet = ipv4(tcp(), 6)
    odd = {
        "arp-request": ethernet(arp(), ETH_ARP),
        "arp-reply": ethernet(arp(2), ETH_ARP),
        "arp-of-odd-hardware": ethernet(arp(9, hardware=6, protocol=0x86DD), ETH_ARP),
        "arp-of-odd-lengths": ethernet(arp(address_lengths=0x0810), ETH_ARP),
        "arp-short": ethernet(arp()[:20], ETH_ARP),
        "arp-truncated": ethernet(arp()[:7], ETH_ARP),
        "rarp": ethernet(arp(3), 0x8035),
        "lldp": ethernet(b"\2\7\4" + b"\0" * 20, 0x88CC),
        "truncated": ethernet(packet[:19], ETH_IPV4),
        "6-truncated": ethernet(ipv6(b"", 6)[:39], ETH_IPV6),
        "ip-options-truncated": ethernet(ipv4(b"", 6, options=bytes(40))[:30], ETH_IPV4),
        "tcp-header-past-the-end": ethernet(ipv4(b"", 6, options=bytes(40))[:20], ETH_IPV4),
        "6-hop-by-hop-missing": ethernet(ipv6(b"", 0), ETH_IPV6),
        "icmp-error": ethernet(ipv4(icmp(3, 1, payload=packet), 1), ETH_IPV4),
        "vlan": ethernet(packet, ETH_IPV4, vlan=5),
        "vlan-priority": ethernet(packet, ETH_IPV4, vlan=0xE000 | 4095),
        "vlan-arp": ethernet(arp(), ETH_ARP, vlan=5),
    }
    log = 'nft \'add rule netdev t c log prefix "{prefix}" flags'
    return [
        Scene("ingress", (*ingress, f"{log} ip options'"), {f"{name} ingress": frame for name, frame in odd.items()}),
        Scene(
            "ingress-macdecode",
            (*ingress, f"{log} all'"),
            {f"{name} ingress all": frame for name, frame in odd.items()},
        ),
        Scene(
            "arp",
            (
                "nft add table arp t",
                "nft 'add chain arp t c {{ type filter hook input priority 0; }}'",
                "nft 'add rule arp t c log prefix \"{prefix}\"'",
            ),
            {"arp-request input": ethernet(arp(), ETH_ARP)},
        ),
        Scene(
            "egress",
            (
                *ADDRESSES,
                "nft add table netdev t",
                "nft 'add chain netdev t c {{ type filter hook egress device eth0 priority 0; }}'",
                "nft 'add rule netdev t c ip protocol {{ icmp, udp }} log prefix \"{prefix}\" flags all'",
                "iptables -A INPUT -j REJECT",
            ),
            {"reject egress": ethernet(ipv4(udp(), 17), ETH_IPV4)},
            {"udp egress": lambda: send_udp(PEER, mark=7)},
            answered=True,
        ),
        Scene(
            "nft-prefix",
            (
                "nft add table inet t",
                "nft 'add chain inet t c {{ type filter hook prerouting priority -300; }}'",
                "nft 'add rule inet t c log prefix \"{prefix}\" flags skuid'",
            ),
            framed(TWO, " long prefix"),
            prefix="nft: " + "IN=eth9 OUT= SRC=1.2.3.4 DST=5.6.7.8 " * 3,
        ),
    ]


def cut_scenes() -> list[Scene]:
    """Lines longer than the kernel's buffer, which any stranger can cause with a chain of extension headers."""
    source = "2001:db8:c0:ffee::1"

    def chain(count: int, last: bytes) -> bytes:
        return fragment(44) * (count - 1) + fragment(6) + last

    return [
        Scene(
            "cut",
            raw_rules("nft"),
            framed(
                {
                    f"6-cut-{count}": ipv6(chain(count, tcp(SYN, dpt=22)), 44, src=source, hop_limit=limit)
                    for count, limit in ((40, 64), (39, 9), (35, 64), (36, 64), (37, 255), (38, 255))
                }
            ),
            tagged=False,
        ),
        Scene(
            "cut-options",
            raw_rules("nft", EVERYTHING),
            framed({"6-cut-options": ipv6(extension(60) * 120 + extension(6) + tcp(), 60, src=source)}),
            tagged=False,
        ),
    ]


def all_scenes() -> list[Scene]:
    """Every scene, in the order of the file."""
    return [
        *plain_scenes(),
        *path_scenes(),
        *output_scenes(),
        *hostile_scenes(),
        *nft_scenes(),
        *cut_scenes(),
    ]
