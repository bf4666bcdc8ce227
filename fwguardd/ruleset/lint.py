"""What iptables swallows without a word and a person would regret: warnings, each with a code and what to do about it.

An author silences one with ``# fwguard: allow CODE`` on the line or on a comment line right above it. Nothing here
needs to know iptables' options beyond those that it warns of.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from fwguardd.ruleset.lint_chains import lint_chains
from fwguardd.ruleset.model import Finding, Origin, Severity
from fwguardd.ruleset.statements import Addition
from fwguardd.ruleset.suggestions import nearest_name
from fwguardd.ruleset.tokenizer import word_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Candidate
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.ruleset.statements import Reading

LONGEST_LOG_PREFIX = 29
"""Characters of a log prefix that iptables keeps (struct xt_log_info, linux/netfilter/xt_LOG.h, less the final NUL)."""

LONGEST_NFLOG_PREFIX = 63
"""The same of an NFLOG prefix (struct xt_nflog_info, linux/netfilter/xt_NFLOG.h)."""

# Most rules match none of this, and are spared the word-by-word look: no LOG, no limit, no name, and a protocol.
_WORTH_A_LOOK = re.compile(
    r"LOG|-m limit|(?:-[io]|interface)[ \t]+[^ \t]*(?:[:*?]|[0-9]+\.[0-9]+\.[0-9])"
    r"|(?:-s|-d|--src|--dst|--source|--destination)[ \t]+!?[ \t]*[0-9.]+(?![^ \t])"
    r"|(?:-s|-d|--src|--dst|--source|--destination)[ \t]+!?[ \t]*[^ \t]*[g-zG-Z]"
    r"|^(?!.*-p(?:roto|[ \t])).*port"
)
_ADDRESS_OPTIONS = frozenset({"-s", "--source", "--src", "-d", "--destination", "--dst"})
_INTERFACE_OPTIONS = frozenset({"-i", "-o", "--in-interface", "--out-interface"})
_ODD_INTERFACE = re.compile(r"(?P<alias>[^:]+):|(?P<star>[^*?]*)[*?]|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
_SHORT_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9]+){0,2}\.?$")
_ADDRESS = re.compile(r"[0-9a-fA-F:.,/]+$")
_PORT_OPTIONS = frozenset(
    {"--dport", "--sport", "--dports", "--sports", "--ports", "--destination-port", "--source-port"}
)
_PROTOCOL_OPTIONS = frozenset({"-p", "--protocol", "--proto"})

WARNINGS = frozenset(
    {"log-without-limit", "log-prefix-too-long", "log-prefix-space", "log-prefix-unwatched", "no-target"}
    | {"odd-interface", "short-address", "host-name", "limit-on-drop", "ftp-without-helper", "duplicate-file"}
    | {"unreachable-rule", "duplicate-rule", "unused-chain", "policy-twice", "preserved-chain", "preserved-rule"}
    | {"no-established", "no-loopback", "no-neighbour-discovery", "ipv6-open", "unknown-allowance", "unseen-set"}
)
"""The codes that a line of a rule file can be silenced for."""


@dataclass(frozen=True, slots=True)
class LintContext:
    """What a lint has to know beside the rules: the prefixes that become events, and what belongs to others."""

    watched_prefixes: tuple[str, ...]
    preserve: Preserve


def lint(candidate: Candidate, readings: Sequence[Reading], context: LintContext) -> tuple[Finding, ...]:
    """All warnings about a candidate, less those that their authors silenced, each told once for both families."""
    found: dict[tuple[str, Origin | None], Finding] = {}
    for finding in (
        *_lint_rules(readings, context),
        *lint_chains(candidate, context.preserve),
        *_duplicate_files(readings),
        *_unknown_allowances(readings),
    ):
        key = (finding.code, finding.origin)
        # What both families are told is of no family.
        found[key] = replace(found[key], family=None) if key in found else finding
    return unsilenced(found.values(), readings)


def unsilenced(findings: Iterable[Finding], readings: Sequence[Reading]) -> tuple[Finding, ...]:
    """Findings in order of place, with the lines as written, less the warnings that their authors silenced."""
    by_path = {reading.path: reading for reading in readings}
    kept: list[Finding] = []
    for finding in findings:
        reading = by_path.get(finding.origin.path) if finding.origin else None
        if reading is None or finding.origin is None:
            kept.append(finding)
        elif finding.severity is Severity.ERROR or finding.code not in reading.allowed.get(finding.origin.line, ()):
            kept.append(finding.with_line(reading.line(finding.origin.line)))
    return tuple(sorted(kept, key=lambda finding: finding.origin or Origin("", 0)))


def _lint_rules(readings: Iterable[Reading], context: LintContext) -> Iterator[Finding]:
    for reading in readings:
        for statement in reading.statements:
            if isinstance(statement, Addition) and _WORTH_A_LOOK.search(statement.text):
                words = word_values(statement.text)
                options = dict(pairwise(words))
                yield from _lint_log(statement, words, options, context)
                yield from _lint_match(statement, words, options)
                yield from _lint_names(statement, words)


def _lint_log(
    rule: Addition, words: Sequence[str], options: Mapping[str, str], context: LintContext
) -> Iterator[Finding]:
    target = options.get("-j", options.get("--jump", ""))
    if target == "NFLOG" and len(options.get("--nflog-prefix", "")) > LONGEST_NFLOG_PREFIX:
        message = f"the NFLOG prefix has {len(options['--nflog-prefix'])} characters; the kernel keeps "
        yield _warning("log-prefix-too-long", f"{message}{LONGEST_NFLOG_PREFIX}", rule, "shorten it")
    if target != "LOG":
        return
    if not {"limit", "hashlimit"} & set(words):
        hint = 'add "-m limit --limit 5/min", or a flood of packets is a flood of lines'
        yield _warning("log-without-limit", "LOG without a limit", rule, hint)
    prefix = _log_prefix(words)
    watched = " or ".join(f'"{watched}"' for watched in context.watched_prefixes)
    if len(prefix) > LONGEST_LOG_PREFIX:
        message = f"the log prefix has {len(prefix)} characters; the kernel keeps {LONGEST_LOG_PREFIX}"
        yield _warning("log-prefix-too-long", message, rule, "shorten it")
    if prefix and not prefix.endswith(" "):
        message = f'the log prefix "{prefix}" does not end in a space, and runs into the line: "{prefix}IN=eth0"'
        yield _warning("log-prefix-space", message, rule, f'write "{prefix} ", with a space before the closing quote')
    if not prefix:
        message = "no event will tell of what this logs: it has no prefix"
        yield _warning("log-prefix-unwatched", message, rule, f"add --log-prefix with a watched prefix: {watched}")
    elif not {prefix, f"{prefix} "} & set(context.watched_prefixes):
        message = f'no event will tell of "{prefix}": the prefix is not watched'
        yield _warning(
            "log-prefix-unwatched", message, rule, f"add it to prefixes: in fwguardd.yaml, or write {watched}"
        )


def _log_prefix(words: Sequence[str]) -> str:
    """The log prefix, of an option that may be cut short; empty where there is none."""
    for option, value in pairwise((*words, "")):
        if option.startswith("--log-p"):
            _, equals, attached = option.partition("=")
            return attached if equals else value
    return ""


def _lint_match(rule: Addition, words: Sequence[str], options: Mapping[str, str]) -> Iterator[Finding]:
    if options.get("-j") == "DROP" and "limit" in words and "hashlimit" not in words:
        message = "DROP with a limit: what exceeds the limit goes on to the next rules"
        yield _warning(
            "limit-on-drop", message, rule, "put the limit on a rule that accepts, and drop the rest after it"
        )
    ports = _PORT_OPTIONS & set(words)
    if ports and not _PROTOCOL_OPTIONS & set(words):
        message = f"{min(ports)} without a protocol"
        yield Finding("port-without-protocol", message, rule.origin, hint="write -p tcp or -p udp before it")


def _lint_names(rule: Addition, words: Sequence[str]) -> Iterator[Finding]:
    for option, value in pairwise(words):
        if option in _ADDRESS_OPTIONS and value != "!":
            yield from _lint_address(rule, value)
        elif option in _INTERFACE_OPTIONS and (match := _ODD_INTERFACE.match(value)):
            message, hint = _about_interface(value, match)
            yield _warning("odd-interface", message, rule, hint)


def _lint_address(rule: Addition, value: str) -> Iterator[Finding]:
    if not _ADDRESS.match(value):
        message = f'"{value}" is a name: it is looked up when the rules load, and not again when its address changes'
        hint = "write the address; before the network is up no name can be looked up"
        yield _warning("host-name", message, rule, hint)
    elif _SHORT_ADDRESS.match(value):
        numbers = value.rstrip(".").split(".")
        whole = ".".join([*numbers, *["0"] * (4 - len(numbers))])
        message = f'"{value}" without a mask is the one address {whole}'
        yield _warning("short-address", message, rule, f"write {whole}/{8 * len(numbers)}")


def _about_interface(name: str, match: re.Match[str]) -> tuple[str, str]:
    if match["alias"]:
        return (
            f'"{name}" is the label of an address: no packet comes or goes by an interface of that name',
            f"write {match['alias']}, and the address with -d or -s",
        )
    if match["star"]:
        return f'"{name}" matches an interface of just that name', f'write "{match["star"]}+": + is any ending'
    return (
        f'"{name}" is an address, and no interface has that name',
        "write the interface, or the address with -s or -d",
    )


def _duplicate_files(readings: Sequence[Reading]) -> Iterator[Finding]:
    first: dict[tuple[str, ...], str] = {}
    for reading in readings:
        if reading.statements and first.setdefault(reading.lines, reading.path) != reading.path:
            message = f"the same content as {first[reading.lines]}"
            yield Finding("duplicate-file", message, Origin(reading.path, 0), Severity.WARNING, "remove one of the two")


def _unknown_allowances(readings: Sequence[Reading]) -> Iterator[Finding]:
    """What would silence nothing: told where it is first said, which is before the lines that it holds for."""
    for reading in readings:
        told: set[str] = set()
        for line, codes in sorted(reading.allowed.items()):
            for code in sorted(codes - WARNINGS - told):
                told.add(code)
                meant = nearest_name(code, WARNINGS)
                message = f'there is no warning "{code}", so this silences nothing; errors cannot be silenced'
                hint = f"write {meant}" if meant else "write the code as the warning has it, in brackets behind it"
                yield Finding("unknown-allowance", message, Origin(reading.path, line), Severity.WARNING, hint)


def _warning(code: str, message: str, rule: Addition, hint: str) -> Finding:
    return Finding(code, message, rule.origin, Severity.WARNING, hint)
