"""Reading a rule file: the meaning of each kind of line, and the findings for lines that have none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fwguardd.ruleset.families import IPV4_ONLY, IPV6_ONLY, families_of_name
from fwguardd.ruleset.model import BOTH, MOST_FINDINGS, ZERO, Counters, Finding, Origin
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.statements import Addition, Declaration, Statement, TableStart, suppressions
from fwguardd.ruleset.tokenizer import LONGEST_LINE, MOST_LINES


def statements(text: str) -> tuple[Statement, ...]:
    """What a file says that is without mistakes."""
    reading = read_rules("x.rules", text.encode())
    assert not reading.findings, reading.findings[0]
    return reading.statements


def fault(line: str) -> Finding:
    """The finding for a file of one line that has an error."""
    reading = read_rules("x.rules", line.encode())
    assert not reading.statements
    (finding,) = reading.findings
    assert finding.origin == Origin("x.rules", 1)
    return finding


def test_a_rule_without_a_table_belongs_to_filter() -> None:
    """Bare rules are for filter, and for both families."""
    assert statements("-A INPUT -i lo -j ACCEPT") == (
        Addition("filter", "INPUT", None, "-i lo -j ACCEPT", BOTH, Origin("x.rules", 1)),
    )


def test_a_table_holds_until_the_next_one_or_its_commit() -> None:
    """After COMMIT a line belongs to no table, unless no table was ever named."""
    text = "*nat\n-A POSTROUTING -j ACCEPT\n*raw\n-A OUTPUT -j ACCEPT\nCOMMIT # done"
    assert [statement.table for statement in statements(text)] == ["nat", "nat", "raw", "raw"]
    assert len(statements("-A INPUT\nCOMMIT\n-A INPUT")) == 2
    assert [finding.code for finding in read_rules("x", b"*nat\nCOMMIT\n-A OUTPUT").findings] == ["no-table"]


def test_an_unknown_table_is_one_finding() -> None:
    """The lines after an unknown table are skipped up to COMMIT: one typing error is one finding."""
    reading = read_rules("x", b"*fitler\n-A INPUT\nnonsense\nCOMMIT\n*nat\n-N x")
    assert [finding.code for finding in reading.findings] == ["unknown-table"]
    assert [type(statement) for statement in reading.statements] == [TableStart, Declaration]


@pytest.mark.parametrize(
    ("line", "policy", "counters"),
    [
        (":INPUT DROP [7:420]", "DROP", Counters(7, 420)),
        (":INPUT ACCEPT", "ACCEPT", ZERO),
        (":INPUT - [0:0]", None, ZERO),
        ("  :INPUT\tDROP # why", "DROP", ZERO),
        ("-P INPUT DROP", "DROP", ZERO),
        ("--policy INPUT DROP", "DROP", ZERO),
        ("-PINPUT DROP", "DROP", ZERO),
        ("-N INPUT", None, ZERO),
    ],
)
def test_declarations(line: str, policy: str | None, counters: Counters) -> None:
    """A chain is declared by a colon, by -N or by -P."""
    assert statements(line) == (Declaration("filter", "INPUT", policy, BOTH, Origin("x.rules", 1), counters),)


@pytest.mark.parametrize(
    ("line", "position", "text"),
    [
        ("-A INPUT", None, ""),
        ("-A INPUT -j  ACCEPT \t", None, "-j  ACCEPT"),
        ("--append INPUT -j ACCEPT", None, "-j ACCEPT"),
        ("-AINPUT -j ACCEPT", None, "-j ACCEPT"),
        ("--append=INPUT -j ACCEPT", None, "-j ACCEPT"),
        ("-I INPUT -j ACCEPT", 1, "-j ACCEPT"),
        ("-I INPUT 3 -j ACCEPT", 3, "-j ACCEPT"),
        ("--insert=INPUT 03 -j ACCEPT", 3, "-j ACCEPT"),
        ("iptables -A INPUT -j ACCEPT", None, "-j ACCEPT"),
        ("/usr/sbin/iptables -t filter -A INPUT -j ACCEPT", None, "-j ACCEPT"),
        ("-tfilter -A INPUT -j ACCEPT", None, "-j ACCEPT"),
        ("--table=filter -A INPUT -j ACCEPT", None, "-j ACCEPT"),
        ('-A INPUT -m comment --comment "# 1" # 2', None, '-m comment --comment "# 1"'),
        ("-A INPUT -m comment --comment #1", None, "-m comment --comment #1"),
        ('-A INPUT -j ACCEPT # 5" – so', None, "-j ACCEPT"),
        ('-A INPUT -m comment --comment "\\\\"', None, '-m comment --comment "\\\\"'),
    ],
)
def test_additions(line: str, position: int | None, text: str) -> None:
    """A rule's text is what stands behind its chain and place, as written, without a trailing comment."""
    assert statements(line) == (Addition("filter", "INPUT", position, text, BOTH, Origin("x.rules", 1)),)


def test_counters_before_a_rule_are_kept_beside_it() -> None:
    """What iptables-save -c prints in front of a rule is read."""
    (addition,) = statements("[5:300] -A INPUT -j ACCEPT")
    assert isinstance(addition, Addition)
    assert addition.counters == Counters(5, 300)


@pytest.mark.parametrize(
    ("line", "families"),
    [
        ("-4 -A INPUT -i lo", IPV4_ONLY),
        ("-A INPUT --ipv6 -i lo", IPV6_ONLY),
        ("ip6tables -A INPUT -i lo", IPV6_ONLY),
        ("iptables -A INPUT -i lo", BOTH),
        ("-A INPUT -s 10/8", IPV4_ONLY),
        ("-6 -P INPUT DROP", IPV6_ONLY),
        ("-A INPUT -m comment --comment -4", BOTH),
    ],
)
def test_the_families_of_a_line(line: str, families: frozenset[object]) -> None:
    """An option, a command or a word of one family keeps the line to it."""
    (statement,) = statements(line)
    assert statement.families == families


def test_family_options_are_no_part_of_the_text() -> None:
    """The canonical text knows no -4; the rule is in one family's ruleset instead."""
    (addition,) = statements("-A INPUT -p udp -4  --dport 68")
    assert isinstance(addition, Addition)
    assert addition.text == "-p udp --dport 68"


def test_the_name_of_a_file_tells_its_families() -> None:
    """x.v4.rules and x.v6.rules are for one family; v4.rules is a name like any other."""
    assert families_of_name("/etc/fwguard.d/x.v4.rules") == IPV4_ONLY
    assert families_of_name("x.v6.rules") == IPV6_ONLY
    assert families_of_name("xv4.rules") == BOTH


FAULTS = [
    ("nonsense", "not-a-rule", 1),
    ("iptables", "no-command", 0),
    ("-A", "no-chain", 0),
    ("-t nat", "no-command", 0),
    ("-t arp -A INPUT", "unknown-table", 1),
    ("*arp", "unknown-table", 0),
    ("*nat now", "trailing-words", 6),
    ("-N web now", "trailing-words", 8),
    ("-P INPUT DROP now", "trailing-words", 15),
    (":INPUT DROP [0:0] now", "trailing-words", 19),
    (":INPUT DROP x", "bad-declaration", 13),
    (":", "bad-declaration", 0),
    ("-P INPUT REJECT", "bad-policy", 0),
    ("-P web DROP", "policy-on-user-chain", 0),
    ("-I INPUT 0 -i lo", "bad-position", 0),
    ("-N ACCEPT", "chain-name", 0),
    ('-N "a b"', "chain-name", 0),
    ("-N abcdefghijklmnopqrstuvwxyz012", "chain-name", 0),
    ("-N äöüäöüäöüäöüäöü", "chain-name", 0),
    ("-F INPUT", "imperative", 1),
    ("iptables -D INPUT 1", "imperative", 10),
    ("-A INPUT -M /bin/sh", "forbidden-option", 10),
    ("-A INPUT -fM/bin/sh", "forbidden-option", 10),
    ("-A INPUT -s -i -M /bin/sh", "forbidden-option", 16),
    ("iptables -w -A INPUT", "forbidden-option", 10),
    ("-A INPUT --h", "forbidden-option", 10),
    ("-A INPUT -ieth0", "attached-value", 10),
    ("-A INPUT --source=10.0.0.1", "attached-value", 10),
    ("-A INPUT -4j ACCEPT", "attached-value", 10),
    ("-A INPUT -s ! 10.0.0.1", "misplaced-negation", 13),
    ("-A INPUT -s -4 ! 10.0.0.1", "misplaced-negation", 16),
    ("-A INPUT -p tcp --dport ! 22 -j ACCEPT", "misplaced-negation", 25),
    ('-A INPUT --comment "x', "unterminated-quote", 20),
    ("-A INPUT –j ACCEPT", "odd-character", 10),
    ('-A INPUT --comment "\u202e"', "odd-character", 21),
    ("-A INPUT -j ACCEPT\x1b", "odd-character", 19),
    (":INPUT\xa0DROP", "odd-character", 7),
    ("-A INPUT -p tcp \\", "line-continuation", 17),
    ("-A INPUT -p tcp \\ -6", "line-continuation", 17),
    ("-A INPUT -p tcp -j ACCEPT\\", "line-continuation", 26),
    ("-A INPUT -p tcp -j ACCEPT\\ ", "line-continuation", 26),
    ("-A -p tcp -j ACCEPT", "no-chain", 4),
    ("IPT=/sbin/iptables -A INPUT", "other-language", 1),
    ("  sudo iptables -A INPUT", "other-language", 3),
    ("table inet filter {", "other-language", 1),
    ("-A INPUT -i $EXT_IF -j ACCEPT", "shell-syntax", 13),
    ('-A INPUT -s "${LAN}" -j ACCEPT', "shell-syntax", 13),
    ("-A INPUT -p tcp --dport=$PORT", "shell-syntax", 17),
    ("-A INPUT -s `cat lan` -j ACCEPT", "shell-syntax", 13),
    ("-A INPUT -j ACCEPT && true", "shell-syntax", 20),
    ("-A INPUT -j ACCEPT >/dev/null", "shell-syntax", 20),
    ("-A INPUT -j ACCEPT;", "shell-syntax", 19),
    ("-A INPUT -j LOG --log-prefix 'Dropped: '", "single-quotes", 30),
    ("-A INPUT -j LOG --log-prefix 'x y'", "single-quotes", 30),
    ("-A INPUT -s 10/8 -d ::1", "mixed-families", 21),
    ("ip6tables -A INPUT -m comment --comment -4 -s 10.1.1.1", "mixed-families", 47),
    ("-4 -A INPUT -d ::1", "mixed-families", 16),
]


@pytest.mark.parametrize(("line", "code", "column"), FAULTS, ids=[f"{code}: {line}" for line, code, _ in FAULTS])
def test_a_fault_has_a_code_a_line_and_a_column(line: str, code: str, column: int) -> None:
    """Each mistake has a code, the line as written, a message, a hint, and its column where that helps."""
    finding = fault(line)
    assert (finding.code, finding.column, finding.line_text) == (code, column, line)
    assert finding.message and finding.hint


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("*fitler", "write filter"),
        ("-p INPUT DROP", "write -P"),
        ("a INPUT -i lo", "write -A"),
        ("INPUT -i lo", 'write "-A INPUT …"'),
        ("-s 10.0.0.1 -j DROP", 'start a rule with its chain: "-A INPUT -s …"'),
        ("commit", "write COMMIT"),
        ("// why", "start a comment with #"),
        ("-P INPUT accept", "write ACCEPT"),
        (":input DROP [0:0]", "write INPUT"),
        (":web DROP [0:0]", 'write ":web - [0:0]", and end the chain with a rule: "-A web -j DROP"'),
        ("-P INPUT REJECT", 'write DROP, and end the chain with a rule: "-A INPUT -j REJECT"'),
        ("-A INPUT -p tcp -dport 22", "write --dport"),
        ("-A INPUT ! -s ! 10.0.0.1", "write ! -s 10.0.0.1"),
        ("-A INPUT -m comment --comment 'let ssh in'", 'write "let ssh in"'),
        ("-4 -A INPUT -s ::1", "if the rule is for IPv6, leave out -4"),
    ],
)
def test_a_hint_says_what_to_write(line: str, hint: str) -> None:
    """Where the slip of the pen is plain, so is what was meant."""
    assert fault(line).hint == hint


def test_a_file_for_one_family_is_named_when_a_rule_means_the_other() -> None:
    """With the word of the rule that does."""
    (finding,) = read_rules("a.v4.rules", b"-A INPUT -p tcp -s ::1", IPV4_ONLY).findings
    assert finding.message == "::1 means IPv6, and the file's name ends in .v4.rules"
    assert finding.column == 20


def test_a_script_is_one_finding_and_its_rules_are_read() -> None:
    """A script is one finding, not one for each of its lines; other errors in it are reported too."""
    script = b"#!/bin/sh\nIPT=iptables\n$IPT -F\nfor p in 1; do\nwhatever\niptables -A INPUT -i $x\n-A INPUT -i lo"
    reading = read_rules("x", script)
    assert [(finding.code, finding.origin) for finding in reading.findings] == [
        ("other-language", Origin("x", 2)),
        ("shell-syntax", Origin("x", 6)),
    ]
    assert len(reading.statements) == 1


def test_what_looks_like_a_shell_in_prose_is_prose() -> None:
    """Texts for people may hold anything; a $ inside a name is a letter like others."""
    for text in ('--comment "$x; a && b"', "--comment $x", "--comment it's", "--comment a;", '--log-prefix "`x`"'):
        assert statements(f"-A INPUT -m comment {text}")
    assert statements("-A INPUT -j we$b")


def test_rules_after_a_commit_are_one_finding_for_each_commit() -> None:
    """They are one mistake; a line that names its table is none."""
    text = b"*nat\nCOMMIT\n-A OUTPUT\n-A OUTPUT\n-t nat -A OUTPUT\n*raw\nCOMMIT\n-A OUTPUT"
    reading = read_rules("x", text)
    assert [(finding.code, finding.origin) for finding in reading.findings] == [
        ("no-table", Origin("x", 3)),
        ("no-table", Origin("x", 8)),
    ]
    assert sum(isinstance(said, Addition) for said in reading.statements) == 1


@pytest.mark.parametrize(
    ("data", "code", "line"),
    [
        (b"-A INPUT\n-A INPUT -j ACCEPT\0 -s 10/8", "nul-byte", 2),
        (b"# x\r\n", "carriage-return", 1),
        (b"#\r\n\n-A INPUT\r -i lo\n", "carriage-return", 3),
        (b"\n-\0A\0 \0I\0N\0", "utf-16", 1),
        (b"\xff\xfe-\0A\0", "utf-16", 1),
        (b"\xfe\xff\0-\0A", "utf-16", 1),
        (b"\xef\xbb\xbf-A INPUT", "byte-order-mark", 1),
        (b"\n\n# \xe9", "bad-utf-8", 3),
    ],
)
def test_a_file_of_other_bytes_is_refused_whole(data: bytes, code: str, line: int) -> None:
    """Bytes that iptables-restore would misread spoil the file, and nothing of it is used."""
    reading = read_rules("x", data)
    assert reading.statements == () and reading.lines == ()
    assert [(finding.code, finding.origin) for finding in reading.findings] == [(code, Origin("x", line))]


def test_the_finding_for_another_encoding_says_how_to_convert_it() -> None:
    """The command can be copied to a shell: with the file's path, or with FILE where that would need quotes."""
    (finding,) = read_rules("/etc/fwguard.d/10-web.rules", b"-A INPUT\r\n").findings
    assert finding.hint == r"convert it with: sed -i 's/\r$//' /etc/fwguard.d/10-web.rules"
    (finding,) = read_rules("a b;c.rules", b"-A INPUT\r\n").findings
    assert finding.hint == r"convert it with: sed -i 's/\r$//' FILE"
    (finding,) = read_rules("a.rules", b"# \xe9\n").findings
    assert finding.message == "the line has the byte 0xE9, which is not UTF-8"
    assert finding.hint.endswith("iconv -f latin1 -t utf-8 -o NEW a.rules")


@pytest.mark.parametrize(
    ("character", "named", "instead"),
    [
        ("–", "en dash (U+2013)", "write - in"),
        ("—", "em dash (U+2014)", "write -- in"),
        ("“", "left double quotation mark (U+201C)", 'write " in'),
        ("\xa0", "no-break space (U+00A0)", "write a space in"),
        ("\u200b", "zero width space (U+200B)", "remove it"),
        ("\x1b", "a control character (U+001B)", "remove it"),
    ],
)
def test_the_finding_for_an_odd_character_names_it_and_its_replacement(
    character: str, named: str, instead: str
) -> None:
    """A person sees a dash and knows no code points."""
    finding = fault(f"-A INPUT {character} -j ACCEPT")
    assert finding.message.endswith(named)
    assert finding.hint.startswith(instead)


def test_a_file_of_too_many_lines_is_refused_whole() -> None:
    """It is a list of addresses, and would cost more time and memory than a rule file may."""
    reading = read_rules("x", b"\n" * (MOST_LINES + 1))
    assert [(finding.code, finding.origin) for finding in reading.findings] == [("too-many-lines", Origin("x", 0))]
    assert not read_rules("x", b"\n" * MOST_LINES).findings


def test_a_line_may_be_as_long_as_iptables_reads_with_room_for_counters() -> None:
    """A line of the limit is read, one byte more is not; comments may be longer."""
    rule = "-A INPUT -m comment --comment "
    assert statements(rule + "x" * (LONGEST_LINE - len(rule)))
    assert fault(rule + "x" * (LONGEST_LINE - len(rule) + 1)).code == "line-too-long"
    assert fault(rule + '"' + "é" * (LONGEST_LINE // 2) + '"').code == "line-too-long"
    assert statements("#" * (LONGEST_LINE + 1)) == ()


def test_after_twenty_faults_the_rest_is_not_read() -> None:
    """A file that is no rule file at all does not flood its reader."""
    findings = read_rules("x", b"nonsense\n" * 1000).findings
    assert [finding.code for finding in findings] == ["not-a-rule"] * MOST_FINDINGS + ["too-many-errors"]


def test_a_continued_line_is_one_finding() -> None:
    """Lines that are joined by backslashes are one finding."""
    reading = read_rules("x", b"-A INPUT \\\n -p tcp \\\n -j ACCEPT\n-A INPUT -i lo")
    assert [finding.code for finding in reading.findings] == ["line-continuation"]
    assert len(reading.statements) == 1


def test_warnings_are_silenced_on_the_line_and_right_above_it() -> None:
    """``# fwguard: allow CODE`` holds for its line and, in comment lines, for the next rule; an empty line ends it."""
    lines = ["# fwguard: allow a-b, c", "# more", "rule", "rule # fwguard: allow d", "", "#fwguard:allow e", "", "rule"]
    allowed = suppressions(lines)
    assert allowed[3] == {"a-b", "c"}
    assert allowed[4] == {"d"}
    assert allowed[7] == {"e"} and 8 not in allowed
    assert read_rules("x", b"-A INPUT # fwguard: allow x").allowed == {1: {"x"}}


def test_lines_of_one_form_are_read_as_each_would_be_alone() -> None:
    """What was found out about the options of one line is used for others that differ in addresses and ports only."""
    options = (
        "-s {0}.2.3.4",
        "-d 10.0.{0}.1/{0}",
        "-s {0}",
        "-d {0}::1",
        "-s {0}.0.0.1:80",
        "-s 1.2.3.4,{0}::2",
        "-p icmp -s {0}.1.1.1",
        "-p icmpv6 -d {0}.0.0.7",
        "--dport {0}",
        "--dports {0},{0}",
        "--to-port {0} -4",
        "-j -d {0}.2.3.4",
        "-i -s -d {0}.2.3.4",
        "-s {0}.2.3.4 -t nat",
        "-m comment --comment -s {0}.2.3.4",
        "-s {0}.2.3.4 ! --dport {0}",
        "-s {0}.2.3.4 -d 2001:db8::{0}",
        '-m comment --comment "-s {0}.2.3.4" -j ACCEPT',
        "-s {0}.2.3.4; -j DROP",
        "--realm -s {0}.2.3.4",
    )
    lines = [f"-A INPUT {each.format(number)}" for number in (4, 6, 30, 999) for each in options]
    together = read_rules("a.rules", "\n".join([*lines, ""]).encode())
    statements, faults = [], []
    for number, line in enumerate(lines, 1):
        alone = read_rules("a.rules", f"{line}\n".encode())
        statements += [replace(each, origin=Origin("a.rules", number)) for each in alone.statements]
        faults += [replace(each, origin=Origin("a.rules", number)) for each in alone.findings]
    assert together.statements == tuple(statements)
    assert tuple(together.findings) == tuple(faults)
