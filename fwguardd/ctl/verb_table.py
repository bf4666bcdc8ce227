"""The verbs of fwguardctl: one table from the name to the module that adds its arguments and runs it.

The module of a verb is imported only when the command line names that verb: the modules of all verbs together take
longer to import than most verbs take to run. Such a module has the functions of `VerbModule`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import argparse


class VerbModule(Protocol):
    """What the module of a verb offers."""

    def add_arguments(self, parser: argparse.ArgumentParser, verb: str) -> None:
        """Add the description, the examples, the options and the operands of the verb to its parser."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the verb; the exit code. Raises ReportedError."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb: its name, its line in the help of fwguardctl, its module in `fwguardd.ctl`, and whether its output may
    be longer than a screen."""

    name: str
    summary: str
    module: str
    is_long: bool = False

    def load(self) -> VerbModule:
        """Import the module. Raises ModuleNotFoundError where a package that it needs is not installed."""
        return cast("VerbModule", importlib.import_module(f"fwguardd.ctl.{self.module}"))


VERBS = (
    Verb("check", "check the rule files and load them in a temporary network namespace", "check_verb"),
    Verb("test", "send the packets of the policy tests through the rules", "test_verb", is_long=True),
    Verb(
        "diff", "show what a reload would change in the kernel, or how two revisions differ", "diff_verb", is_long=True
    ),
    Verb("render", "print the composed ruleset for iptables-restore", "render_verb", is_long=True),
    Verb(
        "explain",
        "show each rule that one packet meets, the verdict, and what would have to be added",
        "explain",
        is_long=True,
    ),
    Verb("why", "say whether one host can reach a port of another, and if not, why", "why"),
    Verb("exposure", "list the listening sockets, and from where each can be reached", "exposure", is_long=True),
    Verb("impact", "show which connections and sockets a reload would cut, close or open", "impact"),
    Verb("trial", "put new connections to rules that are not in force, for a time", "trial"),
    Verb("doctor", "report what on this host interferes with fwguardd", "doctor"),
    Verb("import", "write rule files from those of iptables-persistent, ufw and iptables scripts", "import_verb"),
    Verb("status", "show what is in force, since when, and what is wrong", "status_verb"),
    Verb("reload", "apply the rule files now, and wait for the result", "daemon_verbs"),
    Verb("confirm", "keep the revision that reload --confirm has put in force", "daemon_verbs"),
    Verb("rollback", "put an earlier revision in force", "daemon_verbs"),
    Verb("history", "list the revisions that are kept", "daemon_verbs", is_long=True),
    Verb(
        "show",
        "show one revision: its files, and its rules as iptables-save prints them",
        "daemon_verbs",
        is_long=True,
    ),
    Verb("open", "accept everything now, for a time or until the next reload", "daemon_verbs"),
    Verb("hold", "do not apply changed rule files until the next reload", "daemon_verbs"),
    Verb("drift", "compare the kernel with the revision in force now", "daemon_verbs"),
    Verb("pause", "do not repair drift for a while, to work on the firewall by hand", "daemon_verbs"),
    Verb("resume", "repair drift again, after a pause or a fight", "daemon_verbs"),
    Verb("adopt", "list rules of other programs in owned tables, and keep or remove them", "daemon_verbs"),
    Verb("deploy", "replace the rules directory by a copy of another one, and apply it", "directory_verbs"),
    Verb("edit", "edit a copy of the rule files, check it, and apply it with a confirmation", "directory_verbs"),
    Verb("allow", "accept connections to a service", "entry_command_line"),
    Verb("deny", "drop connections to a service", "entry_command_line"),
    Verb("block", "drop all packets from an address", "entry_command_line"),
    Verb("remove", "take out what allow, deny or block has written", "entry_command_line"),
    Verb("services", "list the services that allow and deny know by name", "services_verb", is_long=True),
    Verb("counters", "show what each line of the rule files has matched", "counters_verb", is_long=True),
    Verb("watch", "show the events of fwguardd as they come", "watch_verb"),
    Verb(
        "denials",
        "show denied packets: from the journal, live, the top sources and ports, or from old log lines",
        "denials.command",
        is_long=True,
    ),
)
