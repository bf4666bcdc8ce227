"""What iptables swallows without a word and a person would regret: warnings, each with a code and what to do about it.

An author silences one with ``# fwguard: allow CODE`` on the line or on a comment line right above it. Nothing here
needs to know iptables' options beyond those that it warns of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from fwguardd.ruleset.lint_chains import lint_chains
from fwguardd.ruleset.model import Finding, Origin, Severity
from fwguardd.ruleset.statements import Addition
from fwguardd.ruleset.words import word_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Candidate
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.ruleset.statements import Reading

LONGEST_LOG_PREFIX = 29
"""Characters of a log prefix that iptables keeps (struct xt_log_info, linux/netfilter/xt_LOG.h, less the final NUL)."""

# Most rules match none of this, and are spared the word-by-word look: no LOG, no limit, no name, and a protocol.
_WORTH_A_LOOK = re.compile(
    r"LOG|-m limit|(?:-s|-d|--src|--dst|--source|--destination)[ \t]+!?[ \t]*[^ \t]*[g-zG-Z]"
    r"|^(?!.*-p(?:roto|[ \t])).*port"
)
_ADDRESS_OPTIONS = frozenset({"-s", "--source", "--src", "-d", "--destination", "--dst"})
_ADDRESS = re.compile(r"[0-9a-fA-F:.,/]+$")
_PORT_OPTIONS = frozenset(
    {"--dport", "--sport", "--dports", "--sports", "--ports", "--destination-port", "--source-port"}
)
_PROTOCOL_OPTIONS = frozenset({"-p", "--protocol", "--proto"})


@dataclass(frozen=True, slots=True)
class Context:
    """What a lint has to know beside the rules: the prefixes that become events, and what belongs to others."""

    watched_prefixes: tuple[str, ...]
    preserve: Preserve


def lint(candidate: Candidate, readings: Sequence[Reading], context: Context) -> tuple[Finding, ...]:
    """All warnings about a candidate, less those that their authors silenced, each told once for both families."""
    found: dict[tuple[str, Origin | None], Finding] = {}
    for finding in (
        *_lint_rules(readings, context),
        *lint_chains(candidate, context.preserve),
        *_duplicate_files(readings),
    ):
        found.setdefault((finding.code, finding.origin), finding)
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


def _lint_rules(readings: Iterable[Reading], context: Context) -> Iterator[Finding]:
    for reading in readings:
        for statement in reading.statements:
            if isinstance(statement, Addition) and _WORTH_A_LOOK.search(statement.text):
                words = word_values(statement.text)
                options = dict(pairwise(words))
                yield from _lint_log(statement, words, options, context)
                yield from _lint_match(statement, words, options)
                yield from _lint_names(statement, words)


def _lint_log(rule: Addition, words: Sequence[str], options: Mapping[str, str], context: Context) -> Iterator[Finding]:
    target = options.get("-j", options.get("--jump", ""))
    if target not in ("LOG", "NFLOG"):
        return
    if not {"limit", "hashlimit"} & set(words):
        hint = 'add "-m limit --limit 5/min", or a flood of packets is a flood of lines'
        yield _warning("log-without-limit", f"{target} without a limit", rule, hint)
    prefix = options.get("--log-prefix")
    if target != "LOG" or prefix is None:
        return
    if len(prefix) > LONGEST_LOG_PREFIX:
        message = f"the log prefix has {len(prefix)} characters; the kernel keeps {LONGEST_LOG_PREFIX}"
        yield _warning("log-prefix-too-long", message, rule, "shorten it")
    if not prefix.endswith(" "):
        message = f'the log prefix "{prefix}" does not end in a space, and runs into the line: "{prefix}IN=eth0"'
        yield _warning("log-prefix-space", message, rule, "put a space before the closing quote")
    if prefix not in context.watched_prefixes:
        message = f'no event will tell of "{prefix}": the prefix is not watched'
        yield _warning("log-prefix-unwatched", message, rule, "add it to prefixes: in fwguardd.yaml")


def _lint_match(rule: Addition, words: Sequence[str], options: Mapping[str, str]) -> Iterator[Finding]:
    if options.get("-j") in ("DROP", "REJECT") and "limit" in words and "hashlimit" not in words:
        message = f"{options['-j']} with a limit: what exceeds the limit goes on to the next rules"
        yield _warning(
            "limit-on-drop", message, rule, "put the limit on a rule that accepts, and drop the rest after it"
        )
    ports = _PORT_OPTIONS & set(words)
    if ports and not _PROTOCOL_OPTIONS & set(words):
        message = f"{min(ports)} without a protocol"
        yield Finding("port-without-protocol", message, rule.origin, hint="write -p tcp or -p udp before it")


def _lint_names(rule: Addition, words: Sequence[str]) -> Iterator[Finding]:
    for option, value in pairwise(words):
        if option in _ADDRESS_OPTIONS and value != "!" and not _ADDRESS.match(value):
            message = (
                f'"{value}" is a name: it is looked up when the rules load, and not again when its address changes'
            )
            hint = "write the address; before the network is up no name can be looked up"
            yield _warning("host-name", message, rule, hint)


def _duplicate_files(readings: Sequence[Reading]) -> Iterator[Finding]:
    first: dict[tuple[str, ...], str] = {}
    for reading in readings:
        if reading.statements and first.setdefault(reading.lines, reading.path) != reading.path:
            message = f"the same content as {first[reading.lines]}"
            yield Finding("duplicate-file", message, Origin(reading.path, 0), Severity.WARNING, "remove one of the two")


def _warning(code: str, message: str, rule: Addition, hint: str) -> Finding:
    return Finding(code, message, rule.origin, Severity.WARNING, hint)
