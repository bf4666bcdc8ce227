"""The verbs of fwguardctl: one table from the name to the module that adds its arguments and runs it.

The module of a verb is imported only when the command line names that verb: the modules of all verbs together take
longer to import than most verbs take to run. Such a module has the functions of `VerbModule`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    import argparse


class VerbModule(Protocol):
    """What the module of a verb offers."""

    def add_arguments(self, parser: argparse.ArgumentParser, verb: str) -> None:
        """Add the description, the examples, the options and the operands of the verb to its parser."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the verb; the exit code. Raises ReportedError."""


class CommandVerb(NamedTuple):
    """A verb: its name, its line in the help of fwguardctl, its module in `fwguardd.ctl`, and whether its output may
    be longer than a screen."""

    name: str
    summary: str
    module: str
    is_long: bool = False

    def load(self) -> VerbModule:
        """Import the module. Raises ModuleNotFoundError where a package that it needs is not installed."""
        return cast("VerbModule", importlib.import_module(f"fwguardd.ctl.{self.module}"))


GROUPS = (
    (
        "The firewall now",
        (
            CommandVerb("status", "what is in force, since when, and what is wrong", "status_verb"),
            CommandVerb("watch", "the events of fwguardd as they come", "watch_verb"),
            CommandVerb("counters", "what each line of the rule files has matched", "counters_verb", is_long=True),
            CommandVerb("metrics", "what Prometheus reads: states, counts and durations", "metrics_verb", is_long=True),
            CommandVerb("drift", "how the kernel differs from the revision in force", "daemon_verbs"),
            CommandVerb("history", "the revisions that are kept", "daemon_verbs", is_long=True),
            CommandVerb("show", "one revision: its files, and its rules", "daemon_verbs", is_long=True),
            CommandVerb("report", "what happened within some days, as text or HTML", "report.command", is_long=True),
            CommandVerb("doctor", "what on this host interferes with fwguardd", "doctor"),
        ),
    ),
    (
        "Packets",
        (
            CommandVerb("why", "whether one host can reach a port of another, and if not, why", "why"),
            CommandVerb("explain", "each rule that a packet meets, and what would accept it", "explain", is_long=True),
            CommandVerb("exposure", "the listening sockets, and from where each is reached", "exposure", is_long=True),
            CommandVerb("impact", "which connections and sockets a reload would cut or open", "impact"),
            CommandVerb("trial", "put new connections to rules that are not in force", "trial"),
            CommandVerb("host", "print the network of this host as a file, for test --host", "host_verb", is_long=True),
            CommandVerb(
                "denials", "what was denied: in the journal, live, or in old logs", "denials.command", is_long=True
            ),
        ),
    ),
    (
        "Services and addresses",
        (
            CommandVerb("allow", "accept connections to a service", "entry_command_line"),
            CommandVerb("deny", "drop connections to a service", "entry_command_line"),
            CommandVerb("block", "drop all packets from an address", "entry_command_line"),
            CommandVerb("forward", "forward a port of this host to a server behind it", "entry_command_line"),
            CommandVerb("remove", "take out what allow, deny, block or forward has written", "entry_command_line"),
            CommandVerb("services", "the services that allow and deny know by name", "services_verb", is_long=True),
        ),
    ),
    (
        "Rule files",
        (
            CommandVerb("check", "find errors, and load the rules in a temporary namespace", "check_verb"),
            CommandVerb("test", "send the packets of the policy tests through the rules", "test_verb", is_long=True),
            CommandVerb("diff", "what a reload would change, or how two revisions differ", "diff_verb", is_long=True),
            CommandVerb("minimise", "leave out lines that change nothing, proved", "minimise_verb", is_long=True),
            CommandVerb("edit", "edit a copy, check it, and apply it with a confirmation", "directory_verbs"),
            CommandVerb("deploy", "replace the rules directory by a copy of another one", "directory_verbs"),
            CommandVerb("render", "print the ruleset for iptables-restore", "render_verb", is_long=True),
            CommandVerb("import", "write rule files from those of other programs", "import_verb"),
        ),
    ),
    (
        "Apply and take back",
        (
            CommandVerb("reload", "apply the rule files now, and wait for the result", "daemon_verbs"),
            CommandVerb("confirm", "keep the revision that reload --confirm has put in force", "daemon_verbs"),
            CommandVerb("rollback", "put an earlier revision in force", "daemon_verbs"),
            CommandVerb("open", "accept everything, for a time or until the next reload", "daemon_verbs"),
            CommandVerb("hold", "do not apply changed rule files until the next reload", "daemon_verbs"),
            CommandVerb("pause", "do not repair drift for a while", "daemon_verbs"),
            CommandVerb("resume", "repair drift again, after a pause or a fight", "daemon_verbs"),
            CommandVerb("adopt", "keep or remove rules of other programs in owned tables", "daemon_verbs"),
        ),
    ),
)
"""The verbs in the order and under the titles of the help."""

VERBS = tuple(verb for _, verbs in GROUPS for verb in verbs)


def list_of_verbs() -> str:
    """The verbs under their titles, a line each."""
    lines: list[str] = []
    for title, verbs in GROUPS:
        lines += ["", f"{title}:"]
        lines += [f"  {verb.name:10}{verb.summary}" for verb in verbs]
    return "\n".join(lines).lstrip("\n")
