"""Rule files from those of other programs: what is taken over, for which family, and what is reported."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.importing import import_file

SCRIPT = r"""#!/bin/sh
# A firewall.
set -e
IPT=/sbin/iptables
export WAN="eth0"
LAN=192.168.1.0/24   # inside
NOW=$(date)
sudo iptables -F
$IPT -X; $IPT -t nat -F
$IPT -P INPUT ACCEPT
$IPT -w -A INPUT -i lo -j ACCEPT
$IPT -A INPUT -p tcp --dport 22 \
    -m conntrack --ctstate NEW \
    -j ACCEPT
$IPT -t nat -A POSTROUTING -o ${WAN} -s $LAN -j MASQUERADE
iptables -A FORWARD -t mangle -j MARK --set-mark 1
ip6tables -A INPUT -p ipv6-icmp -j ACCEPT 2>/dev/null
iptables -A INPUT -j LOG --log-prefix 'dropped: $x ' || true
iptables -A INPUT -m comment --comment "it's \"$WAN\"" -j LOG --log-prefix 'no $WAN '
for port in 80 443; do
    iptables -A INPUT -p tcp --dport $port -j ACCEPT
done
if [ -f /x ]; then iptables -A INPUT -j ACCEPT; fi
iptables -A INPUT -s $ADMIN -j ACCEPT
echo 1 > /proc/sys/net/ipv4/ip_forward
modprobe nf_conntrack
iptables -D INPUT -j ACCEPT
iptables -A INPUT --nonsense-h -h
iptables -L
iptables -P INPUT DROP
"""


def test_a_script_is_read_to_its_last_line() -> None:
    """What is plain is taken over, with its variables, for the family of its program."""
    imported = import_file("fw.sh", SCRIPT)
    assert imported.name == "fw.rules"
    assert imported.text.splitlines() == [
        "-4 -A INPUT -i lo -j ACCEPT",
        "-4 -A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
        "-4 -t nat -A POSTROUTING -o eth0 -s 192.168.1.0/24 -j MASQUERADE",
        "-4 -t mangle -A FORWARD -j MARK --set-mark 1",
        "-6 -A INPUT -p ipv6-icmp -j ACCEPT",
        '-4 -A INPUT -m comment --comment "it\'s \\"eth0\\"" -j LOG --log-prefix "no $WAN "',
        "-4 -A INPUT -p tcp --dport 80 -j ACCEPT",
        "-4 -A INPUT -p tcp --dport 443 -j ACCEPT",
        "-4 -P INPUT DROP",
    ]


def test_what_is_not_taken_over_is_reported_with_its_line() -> None:
    """Each with the first of its lines, and a reason."""
    reasons = {one.line: one.reason for one in import_file("fw.sh", SCRIPT).not_taken}
    assert list(reasons) == [7, 18, 23, 24, 25, 26, 27, 28]
    assert "runs a command" in reasons[7]
    assert "if" in reasons[23]
    assert "$ADMIN" in reasons[24]
    assert "deletes a rule" in reasons[27]


LOOPS = r"""
PORTS="80 443"
for net in 10.0.0.0/8 "192.168.0.0/16"
do
    for port in $PORTS; do iptables -A INPUT -s $net -p tcp --dport $port -j ACCEPT; done   # both
    [ "$net" = x ] && iptables -A INPUT -j DROP
done
for host in $(cat hosts); do
    iptables -A INPUT -s $host -j ACCEPT
done
for i in {1..3}; do iptables -A INPUT -p tcp --dport 800$i -j ACCEPT; done
for i in a b; do
    iptables -A INPUT -i $i -j ACCEPT
    [ $i = a ] && break
done
if true; then
    for i in a b; do iptables -A INPUT -i $i -j DROP; done
fi
for i in a b; do iptables -A INPUT -i $i -j DROP; done < list
while read -r i; do for j in a b; do iptables -A INPUT -i $i$j -j DROP; done; done
LAST=$port
iptables -A INPUT -p tcp --sport $LAST -j ACCEPT
iptables -A INPUT -i $i -j LOG
"""


def test_loops_over_words_are_run() -> None:
    """A loop over known words is run for each; one whose words or end are not known is listed, line by line."""
    imported = import_file("fw.sh", LOOPS)
    rules = [
        f"-4 -A INPUT -s {net} -p tcp --dport {port} -j ACCEPT"
        for net in ("10.0.0.0/8", "192.168.0.0/16")
        for port in (80, 443)
    ]
    assert imported.text.splitlines() == [*rules, "-4 -A INPUT -p tcp --sport 443 -j ACCEPT"]
    reasons = {one.line: one.reason for one in imported.not_taken}
    assert list(reasons) == [6, *range(8, 21), 23]
    assert "runs a command" in reasons[9]
    assert "pattern" in reasons[11]
    assert "$i" in reasons[23]


def test_a_loop_is_not_run_without_end() -> None:
    """Loops in loops are taken over up to a number of rounds."""
    words = " ".join("abcdefghij")
    script = "".join(f"for a{depth} in {words}; do " for depth in range(5))
    imported = import_file("x", f"{script} iptables -A INPUT -j DROP{'; done' * 5}\n")
    assert imported.text == ""
    assert "4096" in imported.not_taken[0].reason


HERE = r"""
WAN=eth0
iptables -A INPUT -j LOG
iptables -t nat -A POSTROUTING -j ACCEPT
iptables-restore <<EOF
*filter
:INPUT DROP [0:0]
:WEB - [0:0]
[3:4] -A INPUT -i $WAN -p tcp --dport 80 -j WEB
-A WEB -m comment --comment "a \$ sign" -j ACCEPT
-D INPUT -j DROP
COMMIT
EOF
cat <<-'END' | sudo ip6tables-restore -n
	*mangle
	-A FORWARD -i eth0 -j MARK --set-mark 1
	-A FORWARD -i $WAN -j MARK --set-mark 1
	COMMIT
END
cat > /etc/motd <<EOF
iptables -A INPUT -j ACCEPT
EOF
iptables-restore --test <<EOF
*filter
-A INPUT -j DROP
COMMIT
EOF
iptables-restore < /etc/rules
iptables -A INPUT -i lo -j ACCEPT
"""


def test_the_input_of_iptables_restore_is_taken_over() -> None:
    """A here-document replaces the tables that it names, unless there is --noflush; what another command reads is not
    commands."""
    imported = import_file("fw.sh", HERE)
    assert imported.text.splitlines() == [
        "-4 -t nat -A POSTROUTING -j ACCEPT",
        "-4 -P INPUT DROP",
        "-4 -N WEB",
        "-4 -A INPUT -i eth0 -p tcp --dport 80 -j WEB",
        '-4 -A WEB -m comment --comment "a $ sign" -j ACCEPT',
        "-6 -t mangle -A FORWARD -i eth0 -j MARK --set-mark 1",
        "-4 -A INPUT -i lo -j ACCEPT",
    ]
    reasons = {one.line: one.reason for one in imported.not_taken}
    assert list(reasons) == [11, 17, 20, 23, 28]
    assert "deletes a rule" in reasons[11]
    assert "here-document" in reasons[20]
    assert "import that file" in reasons[28]


def test_a_flush_removes_what_was_added_before_it() -> None:
    """Of its family, table and chain only."""
    script = "iptables -N W\niptables -A W -j DROP\niptables -A INPUT -j W\nip6tables -A INPUT -j DROP\n"
    kept = import_file("x", f"{script}iptables -F W\n").text.splitlines()
    assert kept == ["-4 -N W", "-4 -A INPUT -j W", "-6 -A INPUT -j DROP"]
    assert import_file("x", f"{script}iptables -F\niptables -X\n").text == "-6 -A INPUT -j DROP\n"


@pytest.mark.parametrize(
    ("name", "text", "becomes"),
    [
        ("rules.v4", "*nat\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n", "rules.v4.rules"),
        ("rules.v6", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n", "rules.v6.rules"),
        ("saved", "# Generated by ip6tables-save v1.8.9\n*filter\nCOMMIT\n", "saved.v6.rules"),
        ("saved", "*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n", "saved.v4.rules"),
    ],
)
def test_a_saved_ruleset_is_for_one_family(name: str, text: str, becomes: str) -> None:
    """The name of the rule file says which; the text stays."""
    imported = import_file(name, text)
    assert (imported.name, imported.text, imported.not_taken) == (becomes, text, ())


def test_rules_of_ufw_move_to_the_built_in_chains() -> None:
    """The chains of ufw's user lead nowhere without ufw; its own chains are left out, and that is reported."""
    text = (
        "*filter\n:ufw-user-input - [0:0]\n:ufw-before-logging-input - [0:0]\n:ufw-user-limit - [0:0]\n"
        "-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n-A ufw-after-logging-input -j LOG\n"
        "-A ufw-user-limit -j REJECT\nCOMMIT\n"
    )
    imported = import_file("user.rules", text)
    assert imported.name == "user.v4.rules"
    assert imported.text == (
        "*filter\n:ufw-user-limit - [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A ufw-user-limit -j REJECT\nCOMMIT\n"
    )
    assert [one.line for one in imported.not_taken] == [0, 6]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "A=1; B=2\n",
        "iptables -A INPUT -m comment --comment 'open\n",
        "iptables\n$",
        "\\",
        "A=''B C\n",
        "sudo",
        "for",
        "for x in a b; do",
        "for x in a b; do done",
        "cat <<EOF",
        "iptables-restore <<EOF\nx\n-A\n:\n",
        "done; do; do done",
    ],
)
def test_nothing_that_is_read_raises(text: str) -> None:
    """Whatever a file holds, it is taken over or reported."""
    assert import_file("x", text).text == ""
