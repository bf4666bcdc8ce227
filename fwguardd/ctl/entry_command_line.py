"""The command line of allow, deny, block and remove; `fwguardd.ctl.entry_verbs` has what they do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fwguardd.ctl import directory_verbs
from fwguardd.ctl.verb_options import add_confirm, add_force, add_rules, add_socket, describe
from fwguardd.wording import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LONGEST = 366 * 86400.0

_EXIT_CODES = (
    "Exit code: 0 done, or unchanged because it is so already; 1 refused, with nothing changed; 2 wrong usage; "
    "3 the daemon cannot be reached; 4 not permitted; 5 failed."
)
_APPLY = f"The rule file is changed, what that changes is shown, and it is applied. {_EXIT_CODES}"
_SERVICE = "a name that fwguardctl services lists, a name of /etc/services, or a port such as 8080/tcp"
_FROM = "only from these addresses, networks or sets, or those in a file: A, A,B or @FILE"


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the help, the options and the operands of one of the verbs."""
    add_rules(parser)
    add_socket(parser)
    parser.add_argument("--dry-run", action="store_true", help="check the change and show it, no more")
    add_confirm(parser)
    add_force(parser)
    _ARGUMENTS[verb](parser)


def _add_allow(parser: argparse.ArgumentParser) -> None:
    examples = (
        ("fwguardctl allow https", "from everywhere"),
        ("fwguardctl allow 8080/tcp --from 192.0.2.0/24,2001:db8::/32", "only from these networks"),
        ("fwguardctl allow ssh --from 203.0.113.9 --for 2h", "for two hours"),
        ("fwguardctl allow smtp --out --to 192.0.2.25", "from this host to a mail server"),
    )
    describe(parser, f"Accept connections to a service, for IPv4 and IPv6. {_APPLY}", examples)
    _add_service(parser)


def _add_deny(parser: argparse.ArgumentParser) -> None:
    examples = (
        ("fwguardctl deny postgresql", "from everywhere"),
        ("fwguardctl deny ssh --from 198.51.100.0/24", "only from this network"),
    )
    text = "Drop new connections to a service, before all rules that accept, for IPv4 and IPv6."
    describe(parser, f"{text} {_APPLY}", examples)
    _add_service(parser)


def _add_block(parser: argparse.ArgumentParser) -> None:
    examples = (
        ("fwguardctl block 203.0.113.9 --for 1h", "for an hour"),
        ("fwguardctl block @/root/scanners.txt", "the addresses in a file"),
    )
    text = "Drop all packets from an address, to this host and through it, before all rules that accept."
    describe(parser, f"{text} {_APPLY}", examples)
    _add_entry_options(parser)
    help_text = "addresses, networks or sets, or those in a file: A,B or @FILE"
    parser.add_argument("what", metavar="ADDRESS", help=help_text)
    parser.set_defaults(peers=(), outward=False)


def _add_forward(parser: argparse.ArgumentParser) -> None:
    examples = (
        ("fwguardctl forward 8443/tcp to 192.0.2.5:443", "to another port of a server behind this host"),
        ("fwguardctl forward https to 192.0.2.5 --from 198.51.100.0/24", "only from this network"),
    )
    text = (
        "Forward connections to a port of this host to a server behind it: translate their destination, and accept "
        "them in both directions. The kernel forwards packets if net.ipv4.ip_forward, or net.ipv6.conf.all.forwarding, "
        "is 1."
    )
    describe(parser, f"{text} {_APPLY}", examples)
    _add_entry_options(parser)
    parser.add_argument("--from", action="append", default=[], metavar="A", dest="peers", help=_FROM)
    parser.add_argument("what", metavar="PORT", help="a port such as 8443/tcp, or a service with one port")
    parser.add_argument("to", type=_word_to, choices=["to"], metavar="to", help="the word")
    parser.add_argument("server", metavar="SERVER", help="an address, with a port or without: 192.0.2.5:443")
    parser.set_defaults(outward=False)


def _word_to(word: str) -> str:
    """The word between a port and its server. Raises ArgumentTypeError."""
    if word != "to":
        raise argparse.ArgumentTypeError(f"expected PORT to SERVER, found {word!r} in place of to")
    return word


def _add_remove(parser: argparse.ArgumentParser) -> None:
    examples = (
        ("fwguardctl remove https", "what fwguardctl allow https has written"),
        ("fwguardctl remove deny ssh --from 198.51.100.0/24", "with the addresses as they were given"),
    )
    describe(parser, f"Take out what allow, deny, block or forward has written. {_APPLY}", examples)
    _add_peers(parser)
    help_text = "the service or the address; with allow, deny or block before it where several are there; or forward …"
    parser.add_argument("entry", nargs="+", metavar="ENTRY", help=help_text)


def _add_service(parser: argparse.ArgumentParser) -> None:
    _add_entry_options(parser)
    _add_peers(parser)
    parser.add_argument("what", metavar="SERVICE", help=_SERVICE)


def _add_entry_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", type=_time_argument, metavar="2h", dest="seconds", help="end by itself after this")
    parser.add_argument("--comment", metavar="TEXT", help="a comment above the rules")


def _add_peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", action="append", default=[], metavar="A", dest="peers", help=_FROM)
    parser.add_argument(
        "--to", action="append", default=[], metavar="A", dest="peers", help="only to these, with --out"
    )
    parser.add_argument("--out", action="store_true", dest="outward", help="connections of this host to others")


_ARGUMENTS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "allow": _add_allow,
    "deny": _add_deny,
    "block": _add_block,
    "forward": _add_forward,
    "remove": _add_remove,
}


def _seconds(text: str) -> float:
    """The seconds of a time; settings have no days. Raises ValueError."""
    if text.endswith("d") and text[:-1].isdecimal():
        return 86400.0 * int(text[:-1])
    return duration(text)


def _time_argument(text: str) -> float:
    """The seconds of a time such as 2h or 7d. Raises ArgumentTypeError."""
    try:
        seconds = _seconds(text)
    except ValueError as error:
        reason = f"{text!r} is not a duration; write it as 30s, 5m, 2h or 7d"
        raise argparse.ArgumentTypeError(reason) from error
    if not 1.0 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: from 1s to 366d")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Run one of the verbs. Raises SettingsError, KernelError and NamespaceError."""
    # Imported here, because --help does not need these modules.
    from fwguardd.ctl.entry_verbs import run  # noqa: PLC0415
    from fwguardd.ctl.wanted_entry import EntryError, OppositeEntryError  # noqa: PLC0415

    def work() -> int:
        try:
            return run(options, directory_verbs.target_of(options))
        except OppositeEntryError as error:
            return directory_verbs.fail(error, directory_verbs.ANSWER_IS_NO)
        except EntryError as error:
            return directory_verbs.fail(error, directory_verbs.WRONG_USAGE)

    return directory_verbs.guarded(work)
