"""Known programs: those that write chains and rules of their own, and the patterns that recognise them.

A chain is recognised by its name. A rule that a program puts straight into a built-in chain is recognised by its text,
together with its table and chain if the text alone is not specific. Jumps to the chains of a program are preserved too
and need no pattern. Each entry names the source file of the project that sets the name or the text.

A pattern has to be certain: one that also matches what an administrator or an intruder writes would preserve that too.
These have none, and are recognized by the service that adds them: rules that an administrator wrote into the
configuration of a program, such as the PostUp lines of wg-quick(8), the up scripts of OpenVPN, the commands of
knockd.conf, or routing for ZeroTier, which writes no rules itself; rules without a mark of their own, which are those
of DenyHosts (denyhosts/denyhosts DenyHosts/firewalls.py) and of Libreswan with iptables (addnflog, addcat in its
_updown.xfrm); and NetBird's rule that accepts all packets from its interface.

The patterns are those of `fwguardd.ruleset.preserve`.

This module is pure.
"""

from __future__ import annotations

from fwguardd.values import dataclass

_BRIDGE = "br-" + "[0-9a-f]" * 12


@dataclass(frozen=True, slots=True)
class KnownProgram:
    """A program that writes rules of its own.

    ``tables`` are the tables of iptables that it writes to; ``chains`` and ``rules`` are patterns; ``nft_tables`` are
    patterns for the tables that it makes in nf_tables itself, as "family name"; ``source`` names the files of its
    project that set all that; ``restore`` is the command that makes the program put its rules back. Two kinds of chains
    in table filter are shared: those that the program makes and jumps to ``for_administrators`` to fill, and those that
    the administrator makes and jumps to, and that the program has ``filled`` with rules.
    """

    name: str
    title: str
    tables: tuple[str, ...]
    source: str
    chains: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    nft_tables: tuple[str, ...] = ()
    restore: str = ""
    for_administrators: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that the name of the program stands for in the setting ``preserve``."""
        return (*self.chains, *self.rules)


def _docker_bridge(device: str) -> tuple[str, ...]:
    """The rules of Docker for one bridge: before version 28 in FORWARD, in all versions in nat and raw."""
    return (
        f"-t filter -A FORWARD -o {device} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-t filter -A FORWARD -i {device} ! -o {device} -j ACCEPT",
        f"-t filter -A FORWARD -i {device} -o {device} -j ACCEPT",
        f"-t filter -A FORWARD -i {device} -o {device} -j DROP",
        f"-t nat -A POSTROUTING -s * ! -o {device} -j MASQUERADE",
        f"-t nat -A POSTROUTING -o {device} -m addrtype --src-type LOCAL -j MASQUERADE",
        f"-t raw -A PREROUTING -d * ! -i {device} -j DROP",
    )


_IPSEC = "*-m policy --dir * --pol ipsec --reqid [0-9]* --proto * -j ACCEPT"
"""As iptables-save prints the rules of strongSwan. The id of the policy (reqid) is given out by the daemon."""
_WIRE_SERVER = "-t security -A OUTPUT -d 168.63.129.16/32 -p tcp"  # The same address on every machine of Azure.

KNOWN_PROGRAMS = (
    KnownProgram(
        "docker",
        "Docker",
        ("raw", "nat", "filter"),
        # A bridge that is named by the user (com.docker.network.bridge.name) is not recognised.
        "moby/moby integration/network/bridge/iptablesdoc/generated/*.md;"
        " daemon/libnetwork/drivers/bridge/internal/iptabler/iptabler.go; Docker < 28:"
        " libnetwork/drivers/bridge/setup_ip_tables_linux.go",
        ("DOCKER", "DOCKER-*"),
        (
            *(rule for device in ("docker0", "docker_gwbridge", _BRIDGE) for rule in _docker_bridge(device)),
            "-t nat -A POSTROUTING -s */32 -d */32 -p * -m * --dport * -j MASQUERADE",
            "-t nat -A POSTROUTING -s */128 -d */128 -p * -m * --dport * -j MASQUERADE",
            "-t filter -A FORWARD -m set --match-set docker-ext-bridges-v[46] dst *",
            "-t raw -A PREROUTING -d 127.0.0.1/32 ! -i lo -p * -m * --dport * -j DROP",
            "-t filter -A DOCKER-USER -j RETURN",
        ),
        ("ip docker-bridges", "ip6 docker-bridges"),
        for_administrators=("DOCKER-USER",),
        restore="systemctl restart docker",
    ),
    KnownProgram(
        "podman",
        "Podman (netavark)",
        ("nat", "filter"),
        "containers/netavark src/firewall/varktables/types.rs, src/firewall/nft.rs",
        ("NETAVARK_*", "NETAVARK-*"),
        nft_tables=("inet netavark",),
        restore="podman network reload --all",
    ),
    KnownProgram(
        "cni",
        "CNI plugins",
        ("nat", "filter"),
        "containernetworking/plugins plugins/meta/firewall/iptables.go, plugins/meta/firewall/ingresspolicy.go,"
        " plugins/meta/portmap/portmap.go",
        ("CNI-*",),
        nft_tables=("inet cni_hostport", "inet cni_plugins_masquerade"),
        for_administrators=("CNI-ADMIN",),
    ),
    KnownProgram(
        "kubernetes",
        "Kubernetes (kube-proxy, kubelet, kube-router)",
        ("mangle", "nat", "filter"),
        "kubernetes/kubernetes pkg/proxy/iptables/proxier.go, pkg/kubelet/kubelet_network_linux.go;"
        " cloudnativelabs/kube-router pkg/controllers/netpol/network_policy_controller.go, as built into k3s",
        ("KUBE-*",),
        ('-t filter -m comment --comment "KUBE-ROUTER rule to explicitly ACCEPT traffic *',),
        ("ip kube-proxy", "ip6 kube-proxy"),
    ),
    KnownProgram(
        "calico",
        "Calico (Felix)",
        ("raw", "mangle", "nat", "filter"),
        "projectcalico/calico felix/rules/rule_defs.go: ChainNamePrefix, AllHistoricChainNamePrefixes, RuleHashPrefix",
        ("cali-*", "calif[wh]-*", "calit[wh]-*", "calip[io]-*", "felix-*"),
        ('-m comment --comment "cali:*',),
        ("ip calico", "ip6 calico"),
        restore="kubectl -n kube-system rollout restart daemonset calico-node",
    ),
    KnownProgram(
        "cilium",
        "Cilium",
        ("raw", "mangle", "nat", "filter"),
        "cilium/cilium pkg/datapath/iptables/iptables.go: ciliumPrefix, oldCiliumPrefix",
        ("CILIUM_*", "OLD_CILIUM_*"),
        restore="kubectl -n kube-system rollout restart daemonset cilium",
    ),
    KnownProgram(
        "flannel",
        "flannel",
        ("nat", "filter"),
        "flannel-io/flannel pkg/trafficmngr/iptables/iptables.go; before FLANNEL-FWD its rules were bare:"
        " network/iptables.go",
        ("FLANNEL-*",),
        (
            '-t filter -A FORWARD *-m comment --comment "flanneld forward" -j ACCEPT',
            '-t nat -A POSTROUTING *-m comment --comment "flanneld masq" -j *',
        ),
        ("ip flannel-ipv4", "ip6 flannel-ipv6"),
        restore="kubectl -n kube-flannel rollout restart daemonset kube-flannel-ds",
    ),
    KnownProgram(
        "libvirt",
        "libvirt",
        ("mangle", "nat", "filter"),
        "libvirt/libvirt src/network/network_iptables.c; network filters: src/nwfilter/nwfilter_ebiptables_driver.c",
        ("LIBVIRT_*", "libvirt-in", "libvirt-out", "libvirt-in-post", "libvirt-host-in"),
        nft_tables=("ip libvirt_network", "ip6 libvirt_network"),
        restore="systemctl restart libvirtd",
    ),
    KnownProgram(
        "lxd",
        "LXD",
        ("mangle", "nat", "filter"),
        "canonical/lxd lxd/firewall/drivers/drivers_xtables.go: iptablesCommentPrefix, iptablesChainNICFilterPrefix",
        ("lxd_nic_*", "lxd_acl_*"),
        ('*-m comment --comment "generated for LXD *" -j *',),
        ("inet lxd",),
        restore="systemctl restart lxd",
    ),
    KnownProgram(
        "incus",
        "Incus",
        ("mangle", "nat", "filter"),
        "lxc/incus internal/server/firewall/drivers/drivers_xtables.go: iptablesCommentPrefix,"
        " iptablesChainNICFilterPrefix",
        ("incus_nic_*", "incus_acl_*"),
        ('*-m comment --comment "generated for Incus *" -j *',),
        ("inet incus",),
        restore="systemctl restart incus",
    ),
    KnownProgram(
        "fail2ban",
        "fail2ban",
        ("filter",),
        "fail2ban/fail2ban config/action.d/iptables.conf, iptables-ipset.conf, iptables-xt_recent-echo.conf,"
        " nftables.conf; fail2ban-* before 0.9",
        ("f2b-*", "fail2ban-*"),
        ("*-m set --match-set f2b-* src -j *", "*-m recent --update --seconds * --name f2b-* -j *"),
        ("inet f2b-table",),
        restore="systemctl restart fail2ban",
    ),
    KnownProgram(
        "crowdsec",
        "CrowdSec's firewall bouncer",
        ("filter",),
        "crowdsecurity/cs-firewall-bouncer pkg/iptables/iptables_context.go: chainName, loggingChainName; before that"
        " its rules were bare, as in its mode ipset",
        ("CROWDSEC_CHAIN", "CROWDSEC_LOG"),
        ("-t filter -m set --match-set crowdsec*-blacklists* src -j *",),
        ("ip crowdsec", "ip6 crowdsec6"),
        restore="systemctl restart crowdsec-firewall-bouncer",
    ),
    KnownProgram(
        "tailscale",
        "Tailscale",
        ("mangle", "nat", "filter"),
        "tailscale/tailscale util/linuxfw/iptables_runner.go: tsChain, AddConnmarkSaveRule",
        ("ts-input", "ts-forward", "ts-postrouting"),
        (
            "-t mangle -A PREROUTING *-j CONNMARK --restore-mark --nfmask 0xff0000 --ctmask 0xff0000",
            "-t mangle -A OUTPUT *-j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000",
        ),
        restore="systemctl restart tailscaled",
    ),
    KnownProgram(
        "wireguard",
        "WireGuard (wg-quick)",
        ("raw", "mangle"),
        "WireGuard/wireguard-tools src/wg-quick/linux.bash: add_default, the marker of its rules",
        rules=('*-m comment --comment "wg-quick(8) rule for *" -j *',),
        nft_tables=("ip wg-quick-*", "ip6 wg-quick-*"),
    ),
    KnownProgram(
        "ufw-docker",
        "ufw-docker",
        ("filter",),
        "chaifeng/ufw-docker ufw-docker: ufw-docker--install",
        ("ufw-user-forward", "ufw6-user-forward", "ufw-docker-logging-deny", "ufw6-docker-logging-deny"),
    ),
    KnownProgram(
        "sshguard",
        "sshguard",
        ("filter",),
        # The administrator makes the chain and the jump to it; sshguard fills it.
        "SSHGuard/sshguard src/fw/sshg-fw-iptables.sh, src/fw/sshg-fw-nft-sets.sh",
        ("sshguard",),
        nft_tables=("ip sshguard", "ip6 sshguard"),
        filled=("sshguard",),
        restore="systemctl restart sshguard",
    ),
    KnownProgram(
        "fwknop", "fwknop", ("nat", "filter"), "mrash/fwknop server/fwknopd.conf: IPT_INPUT_ACCESS", ("FWKNOP_*",)
    ),
    KnownProgram(
        "knockd",
        "knockd (its script for iptables)",
        ("filter",),
        "jvinet/knock src/knock_helper_ipt.sh: COMMENT_DEFAULT",
        rules=('*-m comment --comment "* by knockd" -j ACCEPT',),
    ),
    KnownProgram("psad", "psad", ("filter",), "mrash/psad psad.conf: IPT_AUTO_CHAIN1", ("PSAD_BLOCK_*",)),
    KnownProgram(
        "miniupnpd",
        "MiniUPnPd",
        ("mangle", "nat", "filter"),
        "miniupnp/miniupnp miniupnpd/netfilter/iptcrdr.c: miniupnpd_nat_chain and the names after it",
        ("MINIUPNPD", "MINIUPNPD-*"),
        restore="systemctl restart miniupnpd",
    ),
    KnownProgram(
        "ipsec",
        "strongSwan and Libreswan (updown scripts)",
        ("filter",),
        "strongswan/strongswan src/_updown/_updown.in: IPSEC_POLICY; Libreswan with nftables: libreswan/libreswan"
        " programs/_updown.xfrm/_updown.xfrm.in",
        rules=(
            f"-t filter -A INPUT {_IPSEC}",
            f"-t filter -A FORWARD {_IPSEC}",
            f"-t filter -A OUTPUT {_IPSEC}",
        ),
        nft_tables=("inet ipsec-log", "inet ipsec-cat"),
        restore="systemctl restart strongswan",
    ),
    KnownProgram(
        "netbird",
        "NetBird",
        ("mangle", "nat", "filter"),
        "netbirdio/netbird client/firewall/iptables/family_linux.go, chains_linux.go, client/net/net.go",
        ("NETBIRD-*",),
        (
            "-t filter -A INPUT -i wt0 -j DROP",
            "-t filter -A FORWARD -i wt0 -j DROP",
            "-t filter -A INPUT -i wt0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-t filter -A FORWARD -m mark --mark 0x1bd20 -j ACCEPT",
            "-t mangle -A FORWARD -i wt0 -m conntrack --ctstate *",
            "-t mangle -A PREROUTING -i wt0 *-j CONNMARK --set-xmark 0x1bd10/*",
            "-t mangle -A POSTROUTING -o wt0 *-j CONNMARK --set-xmark 0x1bd11/*",
        ),
        ("ip netbird", "ip6 netbird"),
        restore="systemctl restart netbird",
    ),
    KnownProgram(
        "istio",
        "Istio",
        ("raw", "mangle", "nat"),
        "istio/istio tools/istio-iptables/pkg/constants/constants.go, cni/pkg/iptables/iptables.go",
        ("ISTIO_*",),
    ),
    KnownProgram(
        "weave",
        "Weave Net",
        ("mangle", "nat", "filter"),
        "weaveworks/weave net/bridge.go: configureIPTables; npc/constants.go, net/ipsec/ipsec.go",
        ("WEAVE", "WEAVE-*"),
        (
            "-t filter -A INPUT -d */32 -i docker0 -p * -m * --dport 678[34] -j DROP",
            "-t filter -A FORWARD -i docker0 -o weave -j DROP",
            "-t filter -A FORWARD -o weave -m state --state NEW -j NFLOG --nflog-group 86",
            "-t filter -A FORWARD -o weave -j DROP",
            "-t filter -A FORWARD -i weave -o weave -j ACCEPT",
            "-t filter -A FORWARD -i weave ! -o weave -j ACCEPT",
            "-t filter -A FORWARD -o weave -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
    ),
    KnownProgram(
        "aws-vpc-cni",
        "AWS VPC CNI",
        ("mangle", "nat"),
        "aws/amazon-vpc-cni-k8s pkg/networkutils/network.go: buildIptablesSNATRules, buildIptablesConnmarkRules",
        ("AWS-SNAT-CHAIN-*", "AWS-CONNMARK-CHAIN-*"),
        (
            '-t mangle -A PREROUTING *-m comment --comment "AWS, primary ENI" *',
            '-t nat -A PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK *',
        ),
    ),
    KnownProgram(
        "node-local-dns",
        "NodeLocal DNSCache",
        ("raw", "filter"),
        "kubernetes/dns cmd/node-cache/app/cache_app.go: iptablesCommentSkipConntrack, iptablesCommentAllowTraffic",
        rules=('*-m comment --comment "NodeLocal DNS Cache: *" -j *',),
    ),
    KnownProgram(
        "ip-masq-agent",
        "ip-masq-agent",
        ("nat",),
        "kubernetes-sigs/ip-masq-agent cmd/ip-masq-agent/ip-masq-agent.go: masq-chain; kubernetes/kubernetes"
        " cluster/gce/addons/ip-masq-agent/ip-masq-agent.yaml",
        ("IP-MASQ-AGENT", "IP-MASQ"),
    ),
    KnownProgram(
        "waagent",
        "the Azure Linux Agent",
        ("security",),
        "Azure/WALinuxAgent azurelinuxagent/ga/firewall_manager.py: IpTables",
        rules=(
            f"{_WIRE_SERVER} -m tcp --dport 53 -j ACCEPT",
            f"{_WIRE_SERVER} -m owner --uid-owner 0 -j ACCEPT",
            f"{_WIRE_SERVER} -m conntrack --ctstate INVALID,NEW -j DROP",
        ),
        restore="systemctl restart walinuxagent",
    ),
    KnownProgram(
        "pve-firewall",
        "the Proxmox VE firewall",
        ("raw", "filter"),
        # Its security groups (GROUP-NAME-IN) are reached from these chains.
        "proxmox/pve-firewall src/PVE/Firewall.pm: get_ruleset_cmdlist, generate_tap_rules_direction",
        ("PVEFW-*", "tap[0-9]*i[0-9]*-IN", "tap[0-9]*i[0-9]*-OUT", "veth[0-9]*i[0-9]*-IN", "veth[0-9]*i[0-9]*-OUT"),
        restore="systemctl restart pve-firewall",
    ),
)
"""All known programs, in the order of the documentation."""
