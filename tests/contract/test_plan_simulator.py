"""The simulator that plans are tried on is held to the real programs, in network namespaces of their own.

What the simulator takes, iptables-nft-restore and iptables-legacy-restore take, and the kernel then holds the same;
what the simulator refuses, at least one of the two refuses.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fwguardd.ruleset.model import Chain, Family, Ruleset
from fwguardd.ruleset.preserve import Preserve, own_part
from fwguardd.ruleset.save_format import read_saved
from tests.property.restore_simulator import EDITS as EDIT_KINDS
from tests.property.restore_simulator import RefusedError, planned, restore
from tests.property.rule_strategies import live_and_wanted
from tests.scale import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.root

BACKENDS = ("nft", "legacy")
PRESERVE = Preserve.from_patterns(["DOCKER*", "f2b-*", "KUBE-*"])
REFUSED = 3
SCRIPT = f"""
"$0-restore" --counters -w 5 <00 || exit 1
for text in 0[1-9]; do
    [ ! -e "$text" ] || "$0-restore" --counters --noflush -w 5 <"$text" || exit {REFUSED}
done
exec "$0-save" -c
"""
few = settings(max_examples=examples(10), phases=set(Phase) - {Phase.shrink})


def whole_text(ruleset: Ruleset) -> str:
    """A ruleset with all its counters."""
    lines: list[str] = []
    for table in ruleset.tables.values():
        lines.append(f"*{table.name}")
        lines += [f":{chain.name} {chain.policy or '-'} {chain.counters}" for chain in table.chains.values()]
        lines += [
            f"{rule.counters} -A {chain.name} {rule.text}".rstrip()
            for chain in table.chains.values()
            for rule in chain.rules
        ]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def really_restored(backend: str, live: Ruleset, texts: Sequence[str]) -> Ruleset | None:
    """What a kernel holds after the texts were loaded on top of the live ruleset; None where one is refused."""
    program = f"ip{'6' if live.family is Family.IPV6 else ''}tables-{backend}"
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate((whole_text(live), *texts)):
            Path(folder, f"{number:02d}").write_text(text, encoding="utf-8")
        finished = subprocess.run(
            ["unshare", "--net", "--", "/bin/sh", "-c", SCRIPT, program],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XTABLES_LOCKFILE": f"{folder}/lock"},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert finished.returncode in (0, REFUSED), finished.stderr
    return read_saved(live.family, finished.stdout).shown if finished.returncode == 0 else None


def simulated(live: Ruleset, texts: Sequence[str]) -> Ruleset | None:
    """The same, without a kernel."""
    try:
        for text in texts:
            live = restore(live, text)
    except RefusedError:
        return None
    return live


def described(ruleset: Ruleset, *, loses: frozenset[str]) -> dict[tuple[str, str], object]:
    """All that can be compared, by chain; a table that was never touched is one that accepts everything."""

    def of_chain(chain: Chain) -> tuple[object, ...]:
        policy = chain.policy, None if "policy" in loses else str(chain.counters)
        rules = [(rule.text, None if "rules" in loses else str(rule.counters)) for rule in chain.rules]
        return policy if chain.policy else None, rules

    everything = {(table.name, chain.name): of_chain(chain) for table, chain in ruleset.chains()}
    silent: list[object] = [(("ACCEPT", counters), []) for counters in (None, "[0:0]")]
    return {place: what for place, what in everything.items() if what not in silent}


def lost_counters(backend: str, family: Family) -> frozenset[str]:
    """What 1.8.9 forgets: ip6tables-nft-restore the counters of the rules that it loads, and legacy those of all
    policies of a table at every write to it."""
    if backend == "legacy":
        return frozenset({"policy"})
    return frozenset({"rules"}) if family is Family.IPV6 else frozenset()


@pytest.mark.parametrize("edit", EDIT_KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
@few
@given(live_and_wanted())
def test_plans_do_in_a_kernel_what_they_do_in_the_simulator(
    backend: str, edit: str, rulesets: tuple[Ruleset, Ruleset]
) -> None:
    """Rules, order, policies and counters are the same, those of others included; and then nothing is left to plan."""
    live, wanted = rulesets
    texts = planned(live, wanted, PRESERVE, edit)
    real, thought = really_restored(backend, live, texts), simulated(live, texts)
    assert real is not None and thought is not None
    lost = lost_counters(backend, live.family)
    assert described(real, loses=lost) == described(thought, loses=lost)
    assert planned(real, wanted, PRESERVE) == ()
    assert planned(own_part(real, PRESERVE, wanted), wanted, PRESERVE) == ()


RULES = ("-i a -j ACCEPT", "-i b -j DROP", "-j other", "-j nowhere")
EDITS = st.one_of(
    st.builds("-A {} {}".format, st.sampled_from(("INPUT", "web", "nobody")), st.sampled_from(RULES)),
    st.builds("[3:4] -I {} {} {}".format, st.sampled_from(("INPUT", "web")), st.integers(1, 4), st.sampled_from(RULES)),
    st.just("-A INPUT -j web"),
    st.builds("-D {} {}".format, st.sampled_from(("INPUT", "web")), st.sampled_from((*RULES, "1", "2", "5"))),
    st.sampled_from(("-F INPUT", "-F web", "-F nobody", "-X web", "-X other", "-X nobody", "-X INPUT")),
    st.sampled_from((":INPUT DROP [5:6]", ":FORWARD ACCEPT [7:8]", ":web - [0:0]", ":fresh - [0:0]", ":other - [0:0]")),
)
BEFORE = """\
*filter
:INPUT ACCEPT [1:2]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:other - [0:0]
:web - [0:0]
[5:6] -A INPUT -i a -j ACCEPT
[7:8] -A INPUT -i b -j DROP
[9:9] -A INPUT -i a -j ACCEPT
[1:1] -A web -i b -j DROP
COMMIT
"""


@few
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_single_edits_do_in_a_kernel_what_they_do_in_the_simulator(edits: list[str]) -> None:
    """Also those that no plan would hold: positions, rules and chains that are not there, jumps to nowhere."""
    live = read_saved(Family.IPV4, BEFORE).shown
    texts = ["".join(f"{line}\n" for line in ("*filter", *edits, "COMMIT"))]
    thought = simulated(live, texts)
    real = [really_restored(backend, live, texts) for backend in BACKENDS]
    if thought is None:
        assert None in real, texts[0]
    else:
        for backend, ruleset in zip(BACKENDS, real, strict=True):
            assert ruleset is not None, texts[0]
            lost = lost_counters(backend, Family.IPV4)
            assert described(ruleset, loses=lost) == described(thought, loses=lost), texts[0]
