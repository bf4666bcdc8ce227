"""A model of what fwguardd should have done after each action, with the kernel as a separate measurement.

Nothing here uses the product's own parser or comparison: what should be loaded is written for iptables-restore, loaded
in a namespace of its own, and read back with iptables-save.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.netns.crashing import parse_tables
from tests.netns.namespaces import fresh_namespace

if TYPE_CHECKING:
    from tests.netns.crashing import Chains

    Loaded = dict[str, dict[str, Chains]]

ROOT: Final = Path(__file__).resolve().parents[2]
EMERGENCY: Final = ROOT / "packaging" / "emergency"
PROGRAMS: Final = {"ipv4": "iptables", "ipv6": "ip6tables"}
SET: Final = "allow"
CREATE_SET: Final = f"ipset create {SET} hash:net"
NOTHING: Final[Loaded] = {"ipv4": {}, "ipv6": {}}


@dataclass(frozen=True)
class Rules:
    """Rules that a rule file may hold. ``port`` makes each of them different; ``bad`` is a mistake of the author."""

    port: int
    with_set: bool = False
    bad: bool = False

    @property
    def file(self) -> str:
        """The text of the rule file."""
        lines = ["-P INPUT DROP", "-P FORWARD DROP", "-P OUTPUT ACCEPT", ":WEB -", "-A INPUT -i lo -j ACCEPT"]
        if self.with_set:
            lines.append(f"-4 -A INPUT -m set --match-set {SET} src -j ACCEPT")
        if self.bad:
            lines.append("-A INPUT -j NOWHERE")
        lines += ["-A INPUT -p tcp -j WEB", f"-A WEB -p tcp --dport {self.port} -j ACCEPT"]
        lines += ["*nat", f"-A PREROUTING -p tcp --dport {self.port} -j REDIRECT --to-ports 8080"]
        return "\n".join(lines) + "\n"

    def restore_text(self, family: str, *, without_set: bool = False) -> str:
        """The same for iptables-restore; ``without_set`` leaves out the rule that needs the ipset."""
        lines = ["*filter", ":INPUT DROP", ":FORWARD DROP", ":OUTPUT ACCEPT", ":WEB -", "-A INPUT -i lo -j ACCEPT"]
        if self.with_set and family == "ipv4" and not without_set:
            lines.append(f"-A INPUT -m set --match-set {SET} src -j ACCEPT")
        lines += ["-A INPUT -p tcp -j WEB", f"-A WEB -p tcp --dport {self.port} -j ACCEPT", "COMMIT"]
        lines += ["*nat", f"-A PREROUTING -p tcp --dport {self.port} -j REDIRECT --to-ports 8080", "COMMIT"]
        return "\n".join(lines) + "\n"


def loaded(backend: str) -> Loaded:
    """What iptables-save prints in the namespace of this thread. A table that holds nothing counts as none."""
    found: Loaded = {}
    for family, program in PROGRAMS.items():
        text = subprocess.run([f"{program}-{backend}-save"], check=True, capture_output=True, text=True).stdout
        found[family] = parse_tables(text.splitlines())
    return found


@cache
def canonical(backend: str, texts: tuple[tuple[str, str], ...]) -> Loaded:
    """What iptables-save prints once these texts were loaded, by family: in a namespace of its own, with the ipset."""
    with fresh_namespace():
        subprocess.run(CREATE_SET.split(), check=True)
        for family, text in texts:
            argv = [f"{PROGRAMS[family]}-{backend}-restore", "-w", "60"]
            subprocess.run(argv, input=text, text=True, check=True)
        return loaded(backend)


@dataclass
class Model:
    """What fwguardd was asked, and what is in force after it.

    ``in_force`` are the rules that were accepted last, None before any were. ``left`` is what another program left
    while repairs are paused or fail. ``known`` are the rules of each revision that was in force at a quiet moment;
    None stands for an open one. ``readable`` says whether the kernel can be read, ``added`` is the port of a rule of
    another program that stays, and ``undecided`` says whether an administrator has to decide about it. ``by_hand`` is a
    rule that somebody has added while everything is accepted.
    """

    backend: str
    directory: Rules
    has_set: bool
    in_force: Rules | None = None
    is_open: bool = False
    held: bool = False
    paused: bool = False
    emergency: bool = False
    left: Loaded | None = None
    readable: bool = True
    added: int | None = None
    undecided: bool = False
    by_hand: str | None = None
    known: dict[int, Rules | None] = field(default_factory=dict)

    def loadable(self, rules: Rules | None) -> bool:
        """Whether the kernel would take these rules now."""
        return rules is None or self.has_set or not rules.with_set

    def is_certain(self) -> bool:
        """Whether it is known what the kernel holds. While it cannot be read, a try to load the rest of a revision may
        have been cut off, which is undone once it can be read."""
        return self.readable or (not self.emergency and self.loadable(self.in_force))

    def applies_files(self) -> None:
        """The files of the directory are put in force, if they can be."""
        if self.directory.bad or not self.loadable(self.directory):
            return
        self.puts(self.directory)
        self.held = False

    def files_changed(self) -> None:
        """What happens by itself after the directory or the ipset has changed, or after a start."""
        if not self.held:
            self.applies_files()

    def puts(self, rules: Rules | None) -> None:
        """These rules are put in force as a whole; None opens the firewall."""
        self.is_open, self.emergency, self.left, self.by_hand = rules is None, False, None, None
        if rules is not None:
            self.in_force = rules

    def rules(self) -> Rules | None:
        """The rules of the revision in force; None for an open one."""
        if self.is_open:
            return None
        return self.in_force

    def is_other(self, revision: int) -> bool:
        """Whether a revision is known to hold other rules than those in force."""
        return revision in self.known and self.known[revision] != self.rules()

    def state(self) -> str:
        """The state that status should name."""
        if self.is_open:
            return "open"
        if self.in_force is None and not self.emergency:
            return "unmanaged"
        if not self.readable:
            return "unverified"
        if self.emergency:
            return "emergency"
        if self.undecided or self.left is not None or not self.loadable(self.in_force):
            return "drifted"
        return "in-force"

    def files(self) -> set[str]:
        """What status may say of the files. Whether held files are validated depends on when they were held."""
        if self.held:
            return {"held", self._result()} - {"applied"}
        if self.directory == self.in_force:
            return {"applied", self._result()}
        return {self._result()}

    def _result(self) -> str:
        if self.directory.bad:
            return "refused"
        if not self.loadable(self.directory):
            return "waiting"
        return "applied"

    def without_added(self, live: Loaded) -> Loaded | None:
        """What is loaded without the rule of another program; None if that is not there once."""
        if self.added is None:
            return live
        policy, rules = live["ipv4"]["filter"]["INPUT"]
        others = tuple(rule for rule in rules if f"--dport {self.added} " not in rule)
        live["ipv4"]["filter"]["INPUT"] = policy, others
        if len(rules) - len(others) == 1:
            return live
        return None

    def expected(self) -> Loaded:
        """What the kernel should hold."""
        if self.emergency:
            names = {"ipv4": "emergency.v4.rules", "ipv6": "emergency.v6.rules"}
            texts = tuple((family, (EMERGENCY / name).read_text()) for family, name in names.items())
            return canonical(self.backend, texts)
        if self.is_open and self.by_hand is not None:
            return canonical(self.backend, (("ipv4", f"*filter\n{self.by_hand}\nCOMMIT\n"),))
        if self.is_open or (self.in_force is None and self.left is None):
            return NOTHING
        if self.left is not None or self.in_force is None:
            return self.left or NOTHING
        without_set = not self.loadable(self.in_force)
        texts = tuple((family, self.in_force.restore_text(family, without_set=without_set)) for family in PROGRAMS)
        return canonical(self.backend, texts)
