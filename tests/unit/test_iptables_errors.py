"""Complaints of iptables-restore, as 1.8.9 prints them, both backends: which line they mean, and why, in plain words.

The text that was refused has its bad rule on line 4, between two good ones; COMMIT is on line 6.
"""

from __future__ import annotations

import pytest

from fwguardd.ruleset.iptables_errors import RestoreError, explain, read_restore_error

TRY = "Try `{0}-restore -h' or '{0}-restore --help' for more information.\n"
PROGRAMS = {"nft": ("iptables-nft", "(nf_tables)"), "legacy": ("iptables", "(legacy)")}


def parse_error(backend: str, words: str, line: int = 4, *, blank: bool = False) -> str:
    """What is printed for a line that cannot be parsed; some extensions add an empty line."""
    name, kind = PROGRAMS[backend]
    empty = "\n" if blank else ""
    return f"{name}-restore v1.8.9 {kind}: {words}\n{empty}Error occurred at line: {line}\n{TRY.format(name)}"


PARSED = [
    ("Couldn't load match `nosuch':No such file or directory", "-m nosuch", "unknown-match", "nosuch"),
    ("Set nosuch doesn't exist.\n", "-m set --match-set nosuch src", "unknown-set", "nosuch"),
    ("host/network `no.such.invalid' not found", "-s no.such.invalid", "unresolvable-name", "no.such.invalid"),
    ("invalid port/service `99999' specified", "-p tcp --dport 99999", "bad-port", "99999"),
    ('unknown option "--dport"', "--dport 22 -j ACCEPT", "port-without-protocol", "--dport"),
    ('unknown option "--nosuch"', "-p tcp --nosuch 1", "unknown-option", "--nosuch"),
    ("multiple -p flags not allowed", "-p tcp -p udp", "repeated-option", "-p"),
    ('unknown protocol "tcpp" specified', "-p tcpp", "bad-protocol", "tcpp"),
    ("invalid mask `33' specified", "-s 10.0.0.0/33", "bad-address", "33"),
    ("! not allowed with multiple source or destination IP addresses", "! -s 10/8,11/8", "refused", "multiple"),
    ("Can't use -o with INPUT\n", "-o eth0", "wrong-interface", "INPUT"),
    ('unknown reject type "nosuch"', "-j REJECT --reject-with nosuch", "bad-value", "nosuch"),
    ('Bad ctstate "NOSUCH"', "-m conntrack --ctstate NOSUCH", "bad-value", "NOSUCH"),
    ('bad rate "5/fortnight"\'', "-m limit --limit 5/fortnight", "bad-value", "fortnight"),
    ('option "--dport" requires an argument', "-p tcp --dport", "missing-value", "--dport"),
    (
        "Need TCP, UDP, SCTP or DCCP with port specification",
        "-j REDIRECT --to-ports 1",
        "port-without-protocol",
        "port",
    ),
    ('The "nat" table is not intended for filtering, the use of DROP is …', "-j DROP", "wrong-table", "nat"),
    ('owner: Bad value for "--uid-owner" option: "nobody2"', "-m owner --uid-owner nobody2", "bad-value", "nobody2"),
    ('Bad IP address "eth0"', "-j SNAT --to-source eth0", "bad-value", "eth0"),
    ("--tcp-flags requires two args.", "-p tcp --tcp-flags SYN", "missing-value", "two lists"),
    ("Invalid MAC address specified.", "-m mac --mac-source 00:11", "bad-value", "six"),
    ("multiple -j flags not allowed", "-j DROP -j LOG", "repeated-option", "-j"),
    ("Parameter too long!", "-m comment --comment …", "refused", "too long"),
    ("Invalid target name `abcdefghijklmnopqrstuvwxyz0123' (28 chars max)", "-j …", "refused", "28 chars"),
]


@pytest.mark.parametrize("backend", PROGRAMS)
@pytest.mark.parametrize(
    ("words", "rule", "code", "named"), PARSED, ids=[code + ":" + rule for _, rule, code, _ in PARSED]
)
def test_a_line_that_cannot_be_parsed(backend: str, words: str, rule: str, code: str, named: str) -> None:
    """Both backends name the line of the rule, and the reason names what is wrong with it."""
    complaint = read_restore_error(parse_error(backend, words))
    assert (complaint.line, complaint.names_rule) == (4, True)
    assert complaint.words == words.strip()
    explanation = explain(complaint, rule)
    assert explanation.code == code
    assert named in explanation.message and explanation.hint


@pytest.mark.parametrize(
    ("words", "rule", "message", "hint"),
    [
        (
            "invalid port/service `80,443' specified",
            "-p tcp --dport 80,443",
            '"80,443" is neither a port (0 to 65535) nor a service of /etc/services',
            'for several ports write "-m multiport --dports 80,443"',
        ),
        (
            "host/network `192.168.1.256' not found",
            "-s 192.168.1.256",
            '"192.168.1.256" is not an address',
            "correct it; the numbers of an IPv4 address go up to 255",
        ),
        (
            "host/network `any' not found",
            "-s any",
            'the host name "any" cannot be resolved',
            "leave the option out: without it any address matches",
        ),
        (
            "Bad argument `ACCEPT'",
            "-p tcp --dport 22 ACCEPT",
            '"ACCEPT" does not belong to an option',
            "write -j ACCEPT",
        ),
        (
            "Bad argument `10.0.0.2'",
            "-s 10.0.0.1, 10.0.0.2",
            '"10.0.0.2" does not belong to an option',
            "write lists without blanks: A,B",
        ),
        (
            'unknown option "--ctstate"',
            "--ctstate NEW",
            'no match or target of this rule has the option "--ctstate"',
            'write "-m conntrack" before it',
        ),
        (
            'unknown option "--dprot"',
            "-p tcp --dprot 22",
            'no match or target of this rule has the option "--dprot"',
            "write --dport",
        ),
        (
            'unknown option "--syn"',
            "-p udp --syn",
            'no match or target of this rule has the option "--syn"',
            'write "-p tcp" in place of "-p udp"',
        ),
        (
            "Port `70000' not valid",
            "-p tcp -j REDIRECT --to-ports 70000",
            '"70000" is not a port',
            "write a number from 1 to 65535; a range is written 8000-8010",
        ),
        (
            "invalid portrange (min > max)",
            "-p tcp --dport 9:1",
            "the first port of a range is larger than the last",
            "write the smaller number first: 1:9",
        ),
        (
            "invalid portrange specified",
            "-p tcp -m multiport --dports 9:1",
            "the first port of a range is larger than the last",
            "write the smaller number first: 1:9",
        ),
        (
            "Port range `1' funky",
            "-p tcp -j REDIRECT --to-ports 9-1",
            "the first port of a range is larger than the last",
            "write the smaller number first",
        ),
        (
            "--match-set requires two args.",
            "-m set --match-set x",
            "--match-set requires the name of a set, and src or dst",
            "write both: --match-set NAME src",
        ),
        (
            'dscp: bad value for option "--dscp", or out of range (0-63).',
            "-m dscp --dscp 99",
            "the value of --dscp is not valid",
            "write a number from 0 to 63",
        ),
        (
            'length: bad value for option "--length" near "abc", or out of range (0-65535).',
            "-m length --length abc",
            "the value of --length is not valid",
            "write a number from 0 to 65535",
        ),
        (
            'connmark: bad integer value for option "--mark", or out of range.',
            "-m connmark --mark zz",
            "the value of --mark is not valid",
            "correct it; iptables-extensions(8) lists the valid values",
        ),
        (
            'invalid time "25:00" specified, should be hh:mm[:ss] format and within the boundaries',
            "-m time --timestart 25:00",
            '"25:00" is not a time of day',
            "write hh:mm or hh:mm:ss: 23:59",
        ),
        (
            'unknown protocol "tcp/udp" specified',
            "-p tcp/udp",
            'there is no protocol "tcp/udp"',
            "write a rule for each protocol",
        ),
        (
            "TCP match requires '-p tcp'",
            "-m tcp --dport 22",
            "-m tcp without its protocol",
            "write -p tcp before it",
        ),
        (
            "line 4: RULE_APPEND failed (Invalid argument): rule in chain INPUT",
            "-j REJECT --reject-with tcp-reset",
            "tcp-reset works for TCP only",
            "write -p tcp, or another type",
        ),
        (
            "line 4: RULE_APPEND failed (Invalid argument): rule in chain INPUT",
            "-j MASQUERADE",
            "the kernel refuses this rule in this chain",
            "MASQUERADE works in POSTROUTING of table nat",
        ),
    ],
)
def test_what_to_do_fits_the_mistake(words: str, rule: str, message: str, hint: str) -> None:
    """Where the words or the rule tell which mistake it is, the hint says what to write."""
    explanation = explain(read_restore_error(parse_error("nft", words)), rule)
    assert (explanation.message, explanation.hint) == (message, hint)


@pytest.mark.parametrize(
    ("words", "rule", "named"),
    [
        ("multiport needs `-p tcp', `-p udp' or `-p sctp'", "-m multiport --dports 80 -j ACCEPT", "multiport"),
        ("unknown words", "-p tcp -j REDIRECT --to-ports 70000", "REDIRECT"),
        ("unknown words", "-p tcp -j ACCEPT", "the options of the rule"),
        ("unknown words", "-p tcp", "the options of the rule"),
    ],
)
def test_the_hint_names_the_entry_of_the_manual(words: str, rule: str, named: str) -> None:
    """The match that complains by name, or else the target; ACCEPT has no entry in iptables-extensions(8)."""
    explanation = explain(read_restore_error(parse_error("nft", words)), rule)
    assert explanation.code == "refused"
    assert explanation.hint == f"see {named} in iptables-extensions(8)"


@pytest.mark.parametrize("backend", PROGRAMS)
def test_a_bad_argument_is_reported_without_the_name_of_the_program(backend: str) -> None:
    """Nothing stands in front of it: the complaint begins with the words themselves."""
    name, _ = PROGRAMS[backend]
    complaint = read_restore_error(f"Bad argument `foo'\nError occurred at line: 4\n{TRY.format(name)}")
    assert complaint == RestoreError(4, "Bad argument `foo'", names_rule=True)
    assert explain(complaint, "-p tcp foo").code == "bad-argument"


def test_nft_names_a_later_line_for_a_chain_that_does_not_exist() -> None:
    """It notices at the end of the table, so the line is that of COMMIT and no rule's; the chain is named."""
    complaint = read_restore_error(parse_error("nft", "Chain 'ACCPET' does not exist", 6))
    assert (complaint.line, complaint.names_rule) == (6, False)
    explanation = explain(complaint, "")
    assert explanation.code == "undeclared-chain" and "chain ACCPET," in explanation.message


def test_legacy_names_the_line_of_a_jump_to_nowhere() -> None:
    """It looks for a target of that name while it parses."""
    complaint = read_restore_error(
        parse_error("legacy", "Couldn't load target `ACCPET':No such file or directory", blank=True)
    )
    assert (complaint.line, complaint.names_rule) == (4, True)
    assert explain(complaint, "-j ACCPET").code == "undeclared-chain"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("Invalid argument", "refused-by-kernel"),
        ("Operation not supported", "refused-by-kernel"),
        ("Too many links", "jumps-too-deep"),
        ("No such file or directory", "missing-extension"),
        ("Message too long", "too-large"),
    ],
)
def test_nft_names_the_line_that_the_kernel_refused(reason: str, code: str) -> None:
    """The kernel's error number stands in parentheses, with the chain behind it."""
    stderr = f"iptables-nft-restore v1.8.9 (nf_tables): \nline 4: RULE_APPEND failed ({reason}): rule in chain INPUT\n"
    complaint = read_restore_error(stderr)
    assert (complaint.line, complaint.names_rule) == (4, True)
    assert complaint.words == f"line 4: RULE_APPEND failed ({reason}): rule in chain INPUT"
    assert explain(complaint, "-j MASQUERADE").code == code


def test_of_many_refused_lines_the_first_is_taken() -> None:
    """The nft backend lists all of them; the other ones are found after the first one is removed."""
    stderr = "iptables-nft-restore v1.8.9 (nf_tables): \n" + "".join(
        f"line {number}: RULE_APPEND failed (Too many links): rule in chain c{number}\n" for number in (37, 38, 39)
    )
    complaint = read_restore_error(stderr)
    assert complaint.line == 37
    assert complaint.words.count("; ") == 2


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("iptables-restore: line 6 failed\n", 6),
        ("ip6tables-restore: line 6 failed\n", 6),
        ("iptables-restore v1.8.4 (legacy): line 6 failed\n", 6),
        ("iptables-nft-restore: line 4 failed: No chain/target/match by that name.\n", 4),
        ("iptables-restore: COMMIT expected at line 9\n", 9),
        ("iptables-restore v1.8.9 (legacy): iptables-restore: line 2 table name 'x' invalid\n", 2),
    ],
)
def test_other_shapes_that_name_a_line(stderr: str, line: int) -> None:
    """Whatever the version puts in front of it."""
    complaint = read_restore_error(stderr)
    assert complaint.line == line
    assert "restore" not in complaint.words


def test_legacy_says_nothing_about_what_the_kernel_refuses() -> None:
    """It names the line of COMMIT; what is said instead is what it most often means."""
    explanation = explain(read_restore_error("iptables-restore: line 6 failed\n"), "-j MASQUERADE")
    assert explanation.code == "refused-by-kernel"


def test_a_loop_is_reported_chain_by_chain() -> None:
    """Where the caller has found one, that is the reason, whatever the tool says."""
    complaint = read_restore_error("iptables-restore: line 6 failed\n")
    explanation = explain(complaint, "-j b", ("a", "b", "a"))
    assert explanation.code == "chain-loop" and "a → b → a" in explanation.message


@pytest.mark.parametrize("stderr", ["", "\n", "Killed\n", "\x00\udcff", "# Warning: iptables-legacy tables present\n"])
def test_any_text_is_a_complaint_of_some_kind(stderr: str) -> None:
    """Nothing is raised; words that are not known are passed on, and none at all are said to be none."""
    complaint = read_restore_error(stderr)
    assert complaint.line is None and not complaint.names_rule
    assert complaint.words
    assert explain(complaint, "-j LOG").code == "refused"


def test_warnings_are_no_part_of_the_words() -> None:
    """Others print them beside the complaint, with exit code 0 or not."""
    stderr = "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
    assert (
        read_restore_error(stderr + parse_error("nft", "invalid mask `33' specified")).words
        == "invalid mask `33' specified"
    )


@pytest.mark.parametrize(
    ("stderr", "rule", "code", "hint"),
    [
        (
            "iptables-restore v1.8.9 (nf_tables): invalid portrange (min > max)",
            "-p tcp --dport 90:80",
            "bad-port",
            "80:90",
        ),
        ('ip6tables-restore: ttl: bad value for option "--ttl-eq", or out of range (0-255).', "", "bad-value", ""),
        ('unknown option "--gid-owner"', "--gid-owner 3", "unknown-option", '"-m owner"'),
        ("invalid port/service `088' specified", "--dport 088", "bad-port", "write 88"),
        ("Bad argument `chain'", "-j my chain", "bad-argument", "one word"),
        ("line 7: something that nobody knows", "-j DROP", "refused", "the options of the rule"),
    ],
)
def test_an_error_is_explained_without_the_line_of_the_rehearsal(stderr: str, rule: str, code: str, hint: str) -> None:
    """Lines of the text that the rehearsal loads mean nothing to the author of a rule file."""
    explanation = explain(read_restore_error(stderr), rule)
    assert explanation.code == code
    assert hint in explanation.hint
    assert "line 7" not in explanation.message
