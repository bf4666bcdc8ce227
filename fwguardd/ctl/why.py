"""The verb why: whether one host can reach a port of another, for people who do not want to know of chains."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.answers import AnswerPainter, escaped
from fwguardd.ctl.beds import HostBeds, add_host, beds_of
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.diagnose_host import SYSCTLS
from fwguardd.ctl.explain import ExplainedPacket, explain, explanation_document, refuse, with_notes
from fwguardd.ctl.explain_lines import straight_lines, wrapped
from fwguardd.ctl.offline_verbs import input_of
from fwguardd.ctl.ruleset_sources import RulesetSource, may_read_kernel, rules_after_reload, rules_in_force
from fwguardd.ctl.verb_options import add_rules, add_socket, describe
from fwguardd.ctl.why_command import command_to_allow, command_to_remove
from fwguardd.enforce.validate import Invalid
from fwguardd.kernel.sockets import listening_sockets
from fwguardd.packets.host_routes import completed
from fwguardd.packets.journeys import VERDICTS, origin_of, verdict_in_words
from fwguardd.packets.model import Direction, Journey, Packet, Undecided, Verdict
from fwguardd.packets.packet_words import Endpoint, NoRouteError, PacketWords, PacketWordsError, read_end
from fwguardd.values import dataclass

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from fwguardd.packets.endpoints import ListeningSocket
    from fwguardd.packets.model import Step
    from fwguardd.packets.remedy import Remedy
    from fwguardd.ruleset.model import Origin

WRONG_USAGE: Final = 2
HERE: Final = "here"
_PORT: Final = re.compile(r"(?P<port>[0-9]{1,5}|[a-z][a-z0-9-]*)(?:/(?P<protocol>tcp|udp|sctp))?")


@dataclass(frozen=True, slots=True)
class PortAnswer:
    """Whether a port can be reached: what became of the packet, the packet as it arrives, with the destination that NAT
    has given it, and which programs listen; None for another host. ``command`` lets the packet through, "" where none
    does."""

    explanation: ExplainedPacket
    arriving: Packet
    listening: tuple[ListeningSocket, ...] | None
    command: str = ""

    @property
    def yes(self) -> bool:
        """Whether the port can be reached."""
        taken = self.listening is None or any(one.takes(self.arriving.destination) for one in self.listening)
        return taken and self.explanation.accepted


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help, the options and the operands."""
    description = (
        "Say whether one host can reach a port of another, and if not, what keeps it from that and what to do: "
        "why FROM PORT for a port of this host, why FROM TO PORT for another one; FROM can be the word here. The rules "
        "in force are used, or without root the rule files. Nothing is sent on the network. fwguardctl explain shows "
        "the same rule by rule. Exit code: 0 it can; 1 it cannot."
    )
    examples = (
        ("fwguardctl why 10.1.2.3 5432", "can 10.1.2.3 reach port 5432 of this host?"),
        ("fwguardctl why here 192.0.2.53 53/udp", "can this host ask that DNS server?"),
        ("fwguardctl why 10.1.2.3 198.51.100.7 https", "through this host as the router"),
    )
    describe(parser, description, examples)
    add_rules(parser)
    add_socket(parser)
    add_host(parser)
    parser.add_argument("words", nargs="+", metavar="WORD", help="FROM [TO] PORT")


def run(options: argparse.Namespace) -> int:
    """Answer; the exit code. Raises ReportedError."""
    try:
        words = read_question(options.words)
        with beds_of(options) as beds:
            return _run(options, completed(words, beds.routes), beds)
    except NoRouteError as error:
        return _no_route(error, options)
    except PacketWordsError as error:
        print(f"fwguardctl: {escaped(error)}", file=sys.stderr)
        return WRONG_USAGE


def _no_route(error: NoRouteError, options: argparse.Namespace) -> int:
    """The answer where the host cannot send to an address at all."""
    sentence = f"this host has no route to {error.address}"
    if options.json:
        print(json.dumps({"reachable": False, "sentence": sentence}))
    else:
        print(AnswerPainter().bad(f"No: {sentence}."))
    return 1


def _run(options: argparse.Namespace, packet: Packet, beds: HostBeds) -> int:
    rules = _rules(options)
    if isinstance(rules, Invalid):
        return refuse(rules, options, beds)
    beds = beds.with_sets(rules.sets)
    explanation = explain(packet, rules, beds)
    arriving = _arriving(explanation.journey)
    listening = None
    if options.host is None and not _is_sent_on(explanation.journey):
        listening = _listening(arriving)
    command = _command(explanation, arriving, rules, options)
    answer = PortAnswer(explanation, arriving, listening, command)
    _print(answer, with_notes(rules, packet, beds), options)
    return int(not answer.yes)


def _command(explanation: ExplainedPacket, arriving: Packet, rules: RulesetSource, options: argparse.Namespace) -> str:
    """The command that lets the packet through; "" where none does, as for a draft and for another host."""
    if options.host is not None or options.rules_dir is not None:
        return ""
    step = _ended_by(explanation.journey)
    if step is None:
        return ""
    origin = origin_of(step, rules.rulesets[arriving.family])
    return _removal(origin) or command_to_allow(arriving, step, origin, explanation.remedy)


def _ended_by(journey: Journey | Undecided) -> Step | None:
    """The rule or policy that does not let the packet through."""
    if isinstance(journey, Undecided) or journey.verdict is Verdict.ACCEPT:
        return None
    return journey.deciding


def _removal(origin: Origin | None) -> str:
    """The command that takes out the entry of a line; "" where it is no entry, or cannot be read."""
    if origin is None:
        return ""
    with contextlib.suppress(OSError, UnicodeError):
        return command_to_remove(Path(origin.path).read_text(encoding="utf-8"), origin.line)
    return ""


def _rules(options: argparse.Namespace) -> RulesetSource | Invalid:
    """The rules in force; without root, or for a directory that is named, the rule files."""
    source = input_of(options)
    if options.rules_dir is None and options.host is None and may_read_kernel():
        return rules_in_force(source, socket_path_of(options))
    return rules_after_reload(source, of_this_host=options.host is None)


def read_question(words: Sequence[str]) -> PacketWords:
    """FROM PORT or FROM TO PORT. Raises PacketWordsError."""
    if not 2 <= len(words) <= 3:
        raise PacketWordsError("expected FROM PORT or FROM TO PORT, as in: why 10.1.2.3 5432")
    port, protocol = _port(words[-1])
    source, destination = _end(words[0]), Endpoint()
    if len(words) > 2:
        destination = _end(words[1])
    if source.address is None and destination.address is None:
        raise PacketWordsError("expected the address of another host, as in: why 10.1.2.3 5432")
    return PacketWords(protocol, source, replace(destination, port=port))


def _end(word: str) -> Endpoint:
    if word == HERE:
        return Endpoint()
    end = read_end(word)
    if end.port is not None:
        raise PacketWordsError(f"{word!r} has a port: give it as the last word")
    return end


def _port(word: str) -> tuple[int, str]:
    """Port and protocol. Raises PacketWordsError."""
    match = _PORT.fullmatch(word)
    if match is None:
        raise PacketWordsError(f"{word!r} is not a port: expected a number or a service, as 5432, ssh or 53/udp")
    protocol = match["protocol"] or "tcp"
    port = _port_number(match["port"], protocol)
    if port > 65535:
        raise PacketWordsError(f"{port} is not a port: expected 1 to 65535")
    return port, protocol


def _port_number(word: str, protocol: str) -> int:
    if word.isdecimal():
        return int(word)
    try:
        return socket.getservbyname(word, protocol)
    except OSError:
        raise PacketWordsError(
            f"no service has the name {word!r} in services(5): give the number of the port"
        ) from None


def _arriving(journey: Journey | Undecided) -> Packet:
    """The packet with the destination that NAT has given it."""
    packet = journey.packet
    if isinstance(journey, Undecided) or not journey.steps:
        return packet
    last = journey.steps[-1].packet
    if last.destination is None or last.destination_port is None:
        return packet
    return replace(packet, destination=last.destination, destination_port=last.destination_port)


def _is_sent_on(journey: Journey | Undecided) -> bool:
    """Whether routing has sent the packet elsewhere than to the sockets of this host, as after a port forward."""
    return isinstance(journey, Journey) and journey.routed not in {"", "local"}


def _listening(packet: Packet) -> tuple[ListeningSocket, ...] | None:
    """The sockets that take the packet; None where it is not for this host."""
    if packet.direction is not Direction.INBOUND:
        return None
    wanted = (packet.protocol, packet.destination_port)
    try:
        found = [one for one in listening_sockets() if (one.protocol, one.port) == wanted]
    except OSError:
        return None
    return tuple(found)


def _print(answer: PortAnswer, rules: RulesetSource, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(_document(answer, rules)))
    else:
        print("\n".join(answer_lines(answer, rules, AnswerPainter())))


def _document(answer: PortAnswer, rules: RulesetSource) -> dict[str, Any]:
    programs = None
    if answer.listening is not None:
        programs = [str(one.program) for one in answer.listening]
    answered = {"reachable": answer.yes, "listening": programs, "command": answer.command or None}
    return {**answered, **explanation_document(answer.explanation, rules)}


def answer_lines(answer: PortAnswer, rules: RulesetSource, ink: AnswerPainter) -> Iterator[str]:
    """The answer in sentences."""
    explanation = answer.explanation
    yield from wrapped(_head(answer), "", _paint(answer, ink))
    if answer.arriving != explanation.journey.packet:
        yield from wrapped(_translation(answer.arriving), "")
    yield from wrapped(_reason(explanation.journey, rules), "")
    yield from _remedy_lines(explanation.remedy, ink, answer.command)
    if explanation.reply is not None:
        yield from _reply_lines(explanation, explanation.reply, rules, ink)
    if explanation.straight is not None:
        yield from straight_lines(explanation.straight, ink)
    for sentence in (*_listening_sentences(answer), *_notes(rules)):
        yield from wrapped(sentence, "")


def _notes(rules: RulesetSource) -> Iterator[str]:
    for note in rules.notes:
        yield f"note: {note}"


def _paint(answer: PortAnswer, ink: AnswerPainter) -> Any:
    if answer.yes:
        return ink.good
    return ink.bad


def _head(answer: PortAnswer) -> str:
    packet = answer.explanation.journey.packet
    port = f"port {packet.destination_port}/{packet.protocol}"
    if isinstance(answer.explanation.journey, Undecided):
        return f"Whether {packet.source} can reach {port} of {packet.destination} is not decided."
    if answer.yes:
        return f"Yes: {packet.source} can reach {port} of {packet.destination}."
    return f"No: {packet.source} cannot reach {port} of {packet.destination}."


def _translation(arriving: Packet) -> str:
    port = f"port {arriving.destination_port}/{arriving.protocol}"
    return f"NAT changes the destination to {port} of {arriving.destination}."


_BY_RULE: Final = "A firewall rule {verb} the packet{place}."
_BY_POLICY: Final = "No firewall rule is for the packet, and what no rule is for is {past}{place}."
_VERBS: Final = {Verdict.ACCEPT: "accepts", Verdict.DROP: "drops", Verdict.REJECT: "rejects"}


def _reason(journey: Journey | Undecided, rules: RulesetSource) -> str:
    if isinstance(journey, Undecided):
        return f"It is {verdict_in_words(journey, rules.rulesets)}."
    if journey.deciding is None:
        return _without_rule(journey, rules)
    sentence = _BY_RULE
    if journey.deciding.position is None:
        sentence = _BY_POLICY
    origin = origin_of(journey.deciding, rules.rulesets[journey.packet.family])
    verb, past = _VERBS[journey.verdict], VERDICTS[journey.verdict]
    return sentence.format(verb=verb, past=past, place=f" ({_place(journey.deciding, origin)})")


def _place(deciding: Step, origin: Origin | None) -> str:
    """Where the rule or the policy is: in the rule files, or else in the kernel."""
    if origin is not None:
        return str(origin)
    if deciding.position is None:
        return f"policy of {deciding.chain}, in no rule file"
    return f"rule {deciding.position} of {deciding.chain}, in no rule file"


def _without_rule(journey: Journey, rules: RulesetSource) -> str:
    if journey.verdict is Verdict.ACCEPT:
        return "No rule is in its way."
    advice = "no rule helps"
    if journey.routed == "forwarding is off":
        advice = f"to forward packets: sysctl -w {SYSCTLS[journey.packet.family]}=1"
    return f"The packet is {verdict_in_words(journey, rules.rulesets)}; {advice}."


def _remedy_lines(remedy: Remedy | None, ink: AnswerPainter, command: str = "") -> Iterator[str]:
    """The command that lets the packet through, and the rules that would have to be added."""
    heading = "To allow it, add:"
    if command:
        yield "To allow it:"
        yield f"  {ink.bold(escaped(command))}"
        heading = "Or add:"
    if remedy is not None and remedy.additions:
        yield from _addition_lines(remedy, heading, ink)


def _addition_lines(remedy: Remedy, heading: str, ink: AnswerPainter) -> Iterator[str]:
    yield heading
    for addition in remedy.additions:
        yield f"  {ink.bold(escaped(addition.line))}"
        yield f"  {escaped(addition.place)}"
    if remedy.proven:
        yield "With this it was accepted in a rehearsal."


def _reply_lines(
    explanation: ExplainedPacket, reply: Journey | Undecided, rules: RulesetSource, ink: AnswerPainter
) -> Iterator[str]:
    """Nothing for an answer that comes back."""
    if isinstance(reply, Journey) and reply.verdict is Verdict.ACCEPT:
        return
    yield from wrapped(f"The answers do not come back. {_reason(reply, rules)}", "")
    yield from _remedy_lines(explanation.reply_remedy, ink)


def _listening_sentences(answer: PortAnswer) -> Iterator[str]:
    """Which program listens, and whether it takes packets to this address; nothing for another host."""
    if answer.listening is not None:
        yield from _programs_in_words(answer.listening, answer.arriving)


def _programs_in_words(listening: Sequence[ListeningSocket], packet: Packet) -> Iterator[str]:
    if not listening:
        yield f"No program of this host listens on port {packet.destination_port}/{packet.protocol}."
    taking = [one for one in listening if one.takes(packet.destination)]
    yield from map(_listens_there, taking)
    if not taking:
        yield from map(_listens_elsewhere, listening)


def _listens_there(one: ListeningSocket) -> str:
    return f"The program {one.program} listens there."


def _listens_elsewhere(one: ListeningSocket) -> str:
    return f"The program {one.program} listens on {one.address} only."
