"""The verb explain: what becomes of one packet, rule by rule, and what would have to be added for it to be accepted."""

from __future__ import annotations

import grp
import json
import pwd
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.answers import AnswerPainter, escaped
from fwguardd.ctl.beds import HostBeds, add_host, beds_of
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.denial_lookup import DenialNotFoundError, denied_packet
from fwguardd.ctl.explain_lines import journey_lines, remedy_lines, straight_lines, verdict_lines, wrapped
from fwguardd.ctl.offline_verbs import input_of, print_findings
from fwguardd.ctl.ruleset_sources import RulesetSource, rules_after_reload, rules_in_force
from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.ctl.verb_options import add_rules, add_socket, describe
from fwguardd.enforce.validate import Invalid
from fwguardd.packets.host_routes import completed
from fwguardd.packets.journeys import journey_document, reply_to
from fwguardd.packets.model import Journey, Packet, Undecided, Verdict
from fwguardd.packets.packet_words import PacketWords, PacketWordsError, read_packet_words
from fwguardd.packets.remedy import Remedy, find_remedy
from fwguardd.packets.straight_answer import StraightAnswer, straight_answer
from fwguardd.values import dataclass

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fwguardd.packets.remedy import AddedRule
    from fwguardd.ruleset.model import Origin

ANSWER_IS_NO, WRONG_USAGE = 1, 2
_INSERTION: Final = re.compile(r"(?:^|\s)(?:-I|--insert)\s")
LAST: Final = "last"
"""The denial that is explained where none is named."""


@dataclass(frozen=True, slots=True)
class ExplainedPacket:
    """The journey of a packet, that of the answer to it, and what would have to be added for the two to be accepted.
    ``straight`` is an answer that does not come back through this host, once the packet is accepted."""

    journey: Journey | Undecided
    reply: Journey | Undecided | None
    remedy: Remedy | None
    reply_remedy: Remedy | None
    straight: StraightAnswer | None = None

    @property
    def accepted(self) -> bool:
        """Whether the packet and the answer to it are accepted, and the answer comes back."""
        return self.straight is None and _is_accepted(self.journey) and (self.reply is None or _is_accepted(self.reply))


def _is_accepted(journey: Journey | Undecided) -> bool:
    return isinstance(journey, Journey) and journey.verdict is Verdict.ACCEPT


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help, the options and the operands."""
    description = (
        "Send one packet through the rules, in a temporary network namespace with the interfaces and routes of this "
        "host, and show each rule that it meets, with file and line, what NAT and routing do to it, and the verdict. "
        "If it is not accepted, show the least that would have to be added. The words are: [in IFACE] [out IFACE] "
        "PROTOCOL SOURCE DESTINATION:PORT, then any of: sport N, state STATE, flags LIST, type N, mark N, uid USER, "
        "gid GROUP. With in alone the packet is for this host, with out alone from it, with both it is forwarded; "
        "without, the routes decide. Nothing is sent on the network. Exit code: 0 accepted; 1 not accepted."
    )
    examples = (
        ("fwguardctl explain in eth0 tcp 203.0.113.9 192.0.2.1:8443", "inbound"),
        ("fwguardctl explain --live out eth0 udp 203.0.113.53:53", "outbound"),
        ("fwguardctl explain in eth0 out eth1 icmp 203.0.113.9 10.0.0.7", "forwarded"),
        ("fwguardctl explain --denial", "the last denial"),
    )
    describe(parser, description, examples)
    add_rules(parser)
    add_socket(parser)
    add_host(parser)
    parser.add_argument("--live", action="store_true", help="the rules in force, not the rule files; this needs root")
    parser.add_argument(
        "--denial", nargs="?", const=LAST, metavar="ID",
        help="the packet of a denial: its kmsg_seq in fwguardctl denials --json (default: the last one)",
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="WORD", help="the packet, as above")


def run(options: argparse.Namespace) -> int:
    """Explain a packet; the exit code. Raises ReportedError."""
    try:
        words = _words(options)
        with beds_of(options) as beds:
            return _run(options, _packet(words, options, beds), beds)
    except (PacketWordsError, DenialNotFoundError) as error:
        print(f"fwguardctl: {escaped(error)}", file=sys.stderr)
        return WRONG_USAGE


def _words(options: argparse.Namespace) -> PacketWords | None:
    """The packet that the words describe; None for that of a denial. Raises PacketWordsError."""
    if options.denial is None and not options.words:
        raise PacketWordsError("expected a packet, as in: explain in eth0 tcp 203.0.113.9 192.0.2.1:22")
    if options.denial is None:
        return read_packet_words(options.words)
    if options.words:
        raise PacketWordsError("give either --denial or the words of a packet")
    return None


def _packet(words: PacketWords | None, options: argparse.Namespace, beds: HostBeds) -> Packet:
    """The packet. Raises PacketWordsError, DenialNotFoundError and UnreadableError."""
    if words is not None:
        return completed(words, beds.routes, user_id(words.user), group_id(words.group))
    return denied_packet({LAST: None}.get(options.denial, options.denial))


def _run(options: argparse.Namespace, packet: Packet, beds: HostBeds) -> int:
    rules = rules_of(options)
    if isinstance(rules, Invalid):
        return refuse(rules, options, beds)
    beds = beds.with_sets(rules.sets)
    explanation = explain(packet, rules, beds)
    _print(explanation, with_notes(rules, packet, beds), options)
    return int(not explanation.accepted)


def rules_of(options: argparse.Namespace) -> RulesetSource | Invalid:
    """The rules that the command line names: those in force with --live, or for a denial; else the rule files."""
    source = input_of(options)
    of_denial = options.denial is not None and options.rules_dir is None
    if options.live or of_denial:
        return rules_in_force(source, socket_path_of(options))
    return rules_after_reload(source, of_this_host=options.host is None)


def with_notes(rules: RulesetSource, packet: Packet, beds: HostBeds) -> RulesetSource:
    """The rules with notes about what the bed lacked, and about interfaces that the host does not have."""
    names = filter(None, (packet.in_interface, packet.out_interface))
    missing = [name for name in names if beds.host.interface(name) is None]
    notes = [f"this host has no interface {name}; the packet was sent as if it had" for name in missing]
    return replace(rules, notes=(*rules.notes, *notes, *beds.notes()))


def refuse(invalid: Invalid, options: argparse.Namespace, beds: HostBeds) -> int:
    """Print what keeps the rule files from being loaded, without the warnings about them."""
    if options.json:
        print(json.dumps({"ok": False, "findings": as_json(invalid.findings)}))
    else:
        print_findings(Invalid(invalid.findings.errors), beds.tool, Painter())
    return ANSWER_IS_NO


def explain(packet: Packet, rules: RulesetSource, beds: HostBeds) -> ExplainedPacket:
    """Send the packet, and the answer to it if it is accepted. Raises NamespaceError."""
    with beds.open(rules.rulesets) as bed:
        (journey,) = bed.send([packet])
        answer = None
        if isinstance(journey, Journey) and journey.verdict is Verdict.ACCEPT:
            answer = reply_to(journey)
        reply = None
        if answer is not None:
            (reply,) = bed.send([answer])
    remedy = _remedy(journey, rules, beds)
    straight = _straight(journey, remedy, rules, beds)
    if straight is not None:
        reply = None
    return ExplainedPacket(journey, reply, remedy, _remedy(reply, rules, beds), straight)


def _straight(
    journey: Journey | Undecided, remedy: Remedy | None, rules: RulesetSource, beds: HostBeds
) -> StraightAnswer | None:
    """The answer that does not come back to a packet that is accepted, if only with what has to be added."""
    if remedy is not None and remedy.proven:
        journey = remedy.journey
    if isinstance(journey, Undecided) or journey.verdict is not Verdict.ACCEPT:
        return None
    return straight_answer(journey, rules.rulesets, beds.routes)


def _remedy(journey: Journey | Undecided | None, rules: RulesetSource, beds: HostBeds) -> Remedy | None:
    if not isinstance(journey, Journey) or journey.verdict is Verdict.ACCEPT:
        return None
    remedy = find_remedy(journey, rules.rulesets, beds.open)
    return replace(remedy, additions=tuple(map(_as_written, remedy.additions)))


def _as_written(addition: AddedRule) -> AddedRule:
    """An addition in front of a rule that its file writes with -I: a line with -A would come behind it."""
    if addition.before is None:
        return addition
    return replace(addition, inserted=bool(_INSERTION.search(_line_at(addition.before))))


def _line_at(origin: Origin) -> str:
    """A line of a rule file; "" where it cannot be read."""
    try:
        lines = Path(origin.path).read_text("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return "".join(lines[max(origin.line - 1, 0) : origin.line])


def _print(explanation: ExplainedPacket, rules: RulesetSource, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(explanation_document(explanation, rules)))
        return
    for line in _lines(explanation, rules, AnswerPainter()):
        print(line)


def _lines(explanation: ExplainedPacket, rules: RulesetSource, ink: AnswerPainter) -> Iterator[str]:
    yield from journey_lines(explanation.journey, rules.rulesets, ink)
    if explanation.remedy is not None:
        yield from remedy_lines(explanation.remedy, rules.rulesets, ink)
    if explanation.reply is not None:
        yield from _reply_lines(explanation, explanation.reply, rules, ink)
    if explanation.straight is not None:
        yield from straight_lines(explanation.straight, ink)
    for note in rules.notes:
        yield from wrapped(f"note: {note}", "")


def _reply_lines(
    explanation: ExplainedPacket, reply: Journey | Undecided, rules: RulesetSource, ink: AnswerPainter
) -> Iterator[str]:
    """One line for an answer that is accepted, else its whole journey."""
    if _is_accepted(reply):
        (*_, last) = verdict_lines(reply, rules.rulesets, AnswerPainter(colours=False))
        yield from wrapped(f"The answer is {last}.", "")
        return
    yield ""
    yield "The answer:"
    yield from journey_lines(reply, rules.rulesets, ink)
    if explanation.reply_remedy is not None:
        yield from remedy_lines(explanation.reply_remedy, rules.rulesets, ink)


def explanation_document(explanation: ExplainedPacket, rules: RulesetSource) -> dict[str, Any]:
    """An explanation as JSON values. The keys are a contract."""
    document = {
        "ok": explanation.accepted,
        "rules": rules.name,
        **journey_document(explanation.journey, rules.rulesets),
    }
    document["add"] = _remedy_document(explanation.remedy)
    document["reply"] = None
    if explanation.reply is not None:
        reply = journey_document(explanation.reply, rules.rulesets)
        document["reply"] = {**reply, "add": _remedy_document(explanation.reply_remedy)}
    document["straight_answer"] = None
    if explanation.straight is not None:
        document["straight_answer"] = explanation.straight.document()
    return {**document, "notes": list(rules.notes)}


def _remedy_document(remedy: Remedy | None) -> dict[str, Any] | None:
    if remedy is None:
        return None
    return {"rules": [addition.document() for addition in remedy.additions], "proven": remedy.proven}


def user_id(name: str | None) -> int | None:
    """The number of a user. Raises PacketWordsError."""
    if name is None or name.isdecimal():
        return _number(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise PacketWordsError(f"there is no user {name!r} on this host: give the number") from None


def group_id(name: str | None) -> int | None:
    """The number of a group. Raises PacketWordsError."""
    if name is None or name.isdecimal():
        return _number(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise PacketWordsError(f"there is no group {name!r} on this host: give the number") from None


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    return int(text)
