"""Known programs: each of their chains and rules, as their projects print or set them, is recognised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fwguardd.ruleset.known_programs import KNOWN_PROGRAMS
from fwguardd.ruleset.model import BUILTIN_CHAINS, Rule
from fwguardd.ruleset.preserve import Preserve
from fwguardd.ruleset.program_lookup import BY_NAME, owner_of_nft_table

ROOT = Path(__file__).resolve().parents[2]

CHAINS = {
    "docker": "DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-FORWARD DOCKER-CT DOCKER-BRIDGE DOCKER-INTERNAL"
    " DOCKER-INGRESS",
    "podman": "NETAVARK_FORWARD NETAVARK_INPUT NETAVARK_ISOLATION_2 NETAVARK-HOSTPORT-DNAT NETAVARK-1D8721804F16F",
    "cni": "CNI-FORWARD CNI-ADMIN CNI-HOSTPORT-DNAT CNI-DN-be1eedf7a76853f303ebd CNI-fb51a7bfa5365a8a89e764fd"
    " CNI-ISOLATION-STAGE-1",
    "kubernetes": "KUBE-SERVICES KUBE-SVC-NPX46M4PTMTKRN6Y KUBE-FIREWALL KUBE-PROXY-CANARY KUBE-ROUTER-INPUT",
    "calico": "cali-INPUT cali-from-wl-dispatch cali-pri-kns.default califw-x felix-FORWARD",
    "cilium": "CILIUM_INPUT CILIUM_POST_nat OLD_CILIUM_INPUT",
    "flannel": "FLANNEL-FWD FLANNEL-POSTRTG",
    "libvirt": "LIBVIRT_INP LIBVIRT_FWX LIBVIRT_PRT libvirt-in-post",
    "lxd": "lxd_nic_lxdbr0 lxd_acl_lxdbr0",
    "incus": "incus_nic_incusbr0",
    "fail2ban": "f2b-sshd f2b-recidive fail2ban-ssh",
    "crowdsec": "CROWDSEC_CHAIN CROWDSEC_LOG",
    "tailscale": "ts-input ts-forward ts-postrouting",
    "ufw-docker": "ufw-user-forward ufw-docker-logging-deny",
    "sshguard": "sshguard",
    "fwknop": "FWKNOP_INPUT FWKNOP_FORWARD FWKNOP_PREROUTING FWKNOP_MASQUERADE",
    "psad": "PSAD_BLOCK_INPUT PSAD_BLOCK_OUTPUT PSAD_BLOCK_FORWARD",
    "miniupnpd": "MINIUPNPD MINIUPNPD-POSTROUTING",
    "netbird": "NETBIRD-ACL-INPUT NETBIRD-RT-FWD-IN NETBIRD-RT-NAT NETBIRD-NAT-OUTPUT",
    "istio": "ISTIO_INBOUND ISTIO_OUTPUT ISTIO_IN_REDIRECT ISTIO_POSTRT",
    "weave": "WEAVE WEAVE-NPC WEAVE-NPC-EGRESS-DEFAULT WEAVE-EXPOSE WEAVE-IPSEC-OUT-MARK WEAVE-CANARY",
    "aws-vpc-cni": "AWS-SNAT-CHAIN-0 AWS-CONNMARK-CHAIN-0",
    "ip-masq-agent": "IP-MASQ-AGENT IP-MASQ",
    "pve-firewall": "PVEFW-INPUT PVEFW-FWBR-IN PVEFW-SET-ACCEPT-MARK tap100i0-IN veth101i1-OUT",
}
RULES = """
docker filter FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
docker filter FORWARD -i docker0 ! -o docker0 -j ACCEPT
docker filter FORWARD -i br-763bda580b1c -o br-763bda580b1c -j ACCEPT
docker filter FORWARD -i docker_gwbridge -o docker_gwbridge -j DROP
docker filter FORWARD -j DOCKER-USER
docker nat POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
docker nat POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 5000 -j MASQUERADE
docker nat POSTROUTING -o docker_gwbridge -m addrtype --src-type LOCAL -j MASQUERADE
docker raw PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
docker raw PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP
podman filter FORWARD -m comment --comment "netavark firewall plugin rules" -j NETAVARK_FORWARD
podman nat POSTROUTING -s 10.88.0.0/16 -j NETAVARK-1D8721804F16F
cni nat POSTROUTING -s 10.88.0.4/32 -m comment \
--comment "name: \\"podman\\" id: \\"a7\\"" -j CNI-cfb28a04db7056bb23430c39
kubernetes filter INPUT -m comment --comment "KUBE-ROUTER rule to explicitly ACCEPT traffic that comply to network \
policies" -m mark --mark 0x20000/0x20000 -j ACCEPT
kubernetes nat OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
calico filter FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
cilium filter FORWARD -m comment --comment "cilium-feeder: CILIUM_FORWARD" -j CILIUM_FORWARD
flannel filter FORWARD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
flannel nat POSTROUTING ! -s 10.42.0.0/16 -d 10.42.0.0/24 -m comment --comment "flanneld masq" -j RETURN
lxd filter INPUT -i lxdbr0 -p tcp -m tcp --dport 53 -m comment --comment "generated for LXD network lxdbr0" -j ACCEPT
lxd nat POSTROUTING -s 10.1.0.0/16 ! -d 10.1.0.0/16 -m comment --comment "generated for LXD network lxdbr0" \
-j MASQUERADE
incus mangle POSTROUTING -o incusbr0 -p udp -m udp --dport 68 -m comment --comment "generated for Incus network \
incusbr0" -j CHECKSUM --checksum-fill
fail2ban filter INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
fail2ban filter INPUT -p tcp -m multiport --dports 22 -m set --match-set f2b-sshd src -j REJECT \
--reject-with icmp-port-unreachable
fail2ban filter INPUT -m recent --update --seconds 3600 --name f2b-sshd --mask 255.255.255.255 --rsource -j DROP
crowdsec filter INPUT -m set --match-set crowdsec6-blacklists-0 src -j DROP
wireguard raw PREROUTING ! -i wg0 -d 10.0.0.2/32 -m addrtype ! --src-type LOCAL -m comment --comment "wg-quick(8) \
rule for wg0" -j DROP
tailscale mangle PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j CONNMARK --restore-mark --nfmask 0xff0000 \
--ctmask 0xff0000
tailscale mangle OUTPUT -m conntrack --ctstate NEW -m mark ! --mark 0x0/0xff0000 -j CONNMARK --save-mark \
--nfmask 0xff0000 --ctmask 0xff0000
fwknop filter INPUT -j FWKNOP_INPUT
knockd filter INPUT -s 198.51.100.7/32 -p tcp -m tcp --dport 22 -m comment --comment "Append  by knockd" -j ACCEPT
miniupnpd filter FORWARD -i eth0 ! -o eth0 -j MINIUPNPD
ipsec filter FORWARD -s 10.1.0.0/24 -d 10.2.0.0/24 -m policy --dir in --pol ipsec --reqid 1 --proto esp -j ACCEPT
ipsec filter OUTPUT -s 192.0.2.1/32 -d 10.2.0.0/24 -o eth0 -m policy --dir out --pol ipsec --reqid 17 --proto esp \
-j ACCEPT
netbird filter INPUT -i wt0 -j NETBIRD-ACL-INPUT
netbird filter FORWARD -i wt0 -j DROP
netbird filter FORWARD -m mark --mark 0x1bd20 -j ACCEPT
netbird mangle PREROUTING -i wt0 -m conntrack --ctstate NEW -j CONNMARK --set-xmark 0x1bd10/0xffffffff
netbird mangle FORWARD -i wt0 -m conntrack --ctstate DNAT -m mark ! --mark 0x1bd20 -j DROP
istio nat PREROUTING -p tcp -j ISTIO_INBOUND
weave filter FORWARD -i weave ! -o weave -j ACCEPT
weave filter FORWARD -o weave -m state --state NEW -j NFLOG --nflog-group 86
weave filter INPUT -d 172.17.0.1/32 -i docker0 -p tcp -m tcp --dport 6783 -j DROP
aws-vpc-cni nat PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
aws-vpc-cni mangle PREROUTING -i eth0 -m comment --comment "AWS, primary ENI" -m addrtype --dst-type LOCAL \
--limit-iface-in -j CONNMARK --set-xmark 0x80/0x80
node-local-dns filter INPUT -d 169.254.20.10/32 -p udp -m udp --dport 53 -m comment \
--comment "NodeLocal DNS Cache: allow DNS traffic" -j ACCEPT
node-local-dns raw OUTPUT -s 10.96.0.10/32 -p tcp -m tcp --sport 53 -m comment \
--comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
ip-masq-agent nat POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL \
destination traffic to our custom IP-MASQ-AGENT chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
waagent security OUTPUT -d 168.63.129.16/32 -p tcp -m owner --uid-owner 0 -j ACCEPT
waagent security OUTPUT -d 168.63.129.16/32 -p tcp -m conntrack --ctstate INVALID,NEW -j DROP
pve-firewall raw PREROUTING -j PVEFW-PREROUTING
""".strip().splitlines()
NOBODYS = """
filter INPUT -p tcp -m tcp --dport 22 -j ACCEPT
filter INPUT -i docker0 -o docker0 -j ACCEPT
filter FORWARD -i br-lan ! -o br-lan -j ACCEPT
filter FORWARD -i eth0 -o docker0 -j ACCEPT
filter FORWARD -i wg0 -j ACCEPT
nat POSTROUTING -o eth0 -j MASQUERADE
nat POSTROUTING -s 192.168.1.0/24 ! -o eth0 -j MASQUERADE
raw PREROUTING -d 192.0.2.1/32 ! -i eth0 -j DROP
filter INPUT -m comment --comment "not generated for LXD at all" -j ACCEPT
filter INPUT -m comment --comment "jump to DOCKER" -j ACCEPT
filter INPUT -i wt0 -j ACCEPT
filter INPUT -i wt0 -p tcp -m tcp --dport 22 -j ACCEPT
filter INPUT -m policy --dir in --pol ipsec -j ACCEPT
filter FORWARD -m policy --dir in --pol ipsec --proto esp -j ACCEPT
filter FORWARD -i weave -o eth0 -j ACCEPT
filter INPUT -i docker0 -p udp -m udp --dport 53 -j ACCEPT
filter INPUT -s 203.0.113.9/32 -j DROP
filter INPUT -i tun0 -j ACCEPT
nat POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE
filter FORWARD -i zt+ -o eth0 -j ACCEPT
filter OUTPUT -d 168.63.129.16/32 -p tcp -j DROP
mangle PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
raw PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53 -j NOTRACK
""".strip().splitlines()


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_known(name: str) -> None:
    """Each name that a project gives to its chains is recognised as its own, and as that of no other program."""
    for chain in CHAINS[name].split():
        knowing = [
            program.name for program in KNOWN_PROGRAMS if Preserve.from_patterns(program.patterns).keeps_name(chain)
        ]
        assert knowing == [name], chain


@pytest.mark.parametrize("line", RULES)
def test_rules_are_known(line: str) -> None:
    """Each rule that a project puts into a built-in chain is recognised as its own, and as that of no other program."""
    name, table, chain, text = line.split(" ", 3)
    knowing = [
        program.name
        for program in KNOWN_PROGRAMS
        if Preserve.from_patterns(program.patterns).keeps_rule(Rule(text), table, chain)
    ]
    assert knowing == [name]


@pytest.mark.parametrize("line", NOBODYS)
def test_what_an_administrator_writes_is_nobodys(line: str) -> None:
    """Rules that people write themselves are not taken for somebody else's: they would be left out of the files."""
    table, chain, text = line.split(" ", 2)
    everybody = Preserve.from_patterns(pattern for program in KNOWN_PROGRAMS for pattern in program.patterns)
    assert not everybody.keeps_rule(Rule(text), table, chain)


def test_every_known_program_has_examples() -> None:
    """Chains or rules of each known program are checked, so that a pattern that matches nothing is noticed."""
    assert {*CHAINS, *(line.split()[0] for line in RULES)} == set(BY_NAME)


def test_every_known_program_names_its_source() -> None:
    """A name that cannot be a chain's, tables that iptables has, and the file of a project for each line."""
    assert len(BY_NAME) == len(KNOWN_PROGRAMS)
    for program in KNOWN_PROGRAMS:
        assert program.patterns
        assert "/" in program.source
        assert set(program.tables) <= set(BUILTIN_CHAINS)
        for rule in program.rules:
            table = rule.split()[1] if rule.startswith("-t ") else None
            assert table is None or table in program.tables, rule


def test_tables_of_nf_tables_have_owners() -> None:
    """A table that a program makes in nf_tables is known by its family and name."""
    owners = [owner_of_nft_table(*place.split()) for place in ("ip wg-quick-wg0", "inet f2b-table", "inet filter")]
    assert [owner.name if owner else None for owner in owners] == ["wireguard", "fail2ban", None]


def test_the_shipped_settings_name_known_programs() -> None:
    """The programs that the comments of the shipped settings give as examples are known; fwguardd.yaml(5) lists all."""
    text = (ROOT / "etc" / "fwguardd.yaml").read_text()
    named = re.search(r"all programs that\n# fwguardd knows, such as ([a-z0-9-]+) and ([a-z0-9-]+)", text)
    assert named
    assert set(named.groups()) <= set(BY_NAME)
