"""What z3 answers about all packets of a set: proved, a packet, or what it depends on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel import z3_solver
from fwguardd.kernel.z3_solver import Solver, SolverFailedError, SolverMissingError, SolverTimeoutError
from fwguardd.packets.model import Verdict
from fwguardd.proof.answers import Counterexample, Possible, Proved
from fwguardd.proof.fields import PacketField
from fwguardd.proof.formulas import differ
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.intervals import complement
from fwguardd.proof.model import Model
from tests.proofs import CLOSED, HOST, find, model_of, new_tcp, ruleset
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from fwguardd.proof.formulas import Formula, Scope
    from fwguardd.proof.traversal import Outcome

OUTSIDE = {PacketField.SOURCE: complement(((0x0A00_0000, 0x0AFF_FFFF),), 32)}
"""All addresses but those of 10.0.0.0/8."""
DATABASE = "-A INPUT -p tcp -m tcp --dport 5432"


def accepted(outcome: Outcome, _scope: Scope) -> Formula:
    """Whether packets are accepted."""
    return outcome.accept


def test_what_holds_for_all_packets_is_proved() -> None:
    """No packet from outside reaches a port that only inner networks may use, over rules, chains and policies."""
    model = model_of(
        ruleset(
            *(*CLOSED, ":db - [0:0]", "-A INPUT -i lo -j ACCEPT", "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT"),
            *(f"{DATABASE} -j db", "-A db ! -s 10.0.0.0/8 -j RETURN", "-A db -j ACCEPT"),
        )
    )
    packets = new_tcp(model, 5432).narrowed({**OUTSIDE, PacketField.IN: model.known.interfaces.matching("eth0")})
    assert find(model, packets, accepted) == Proved()


def test_a_counterexample_is_a_packet_with_the_rule_that_accepts_it() -> None:
    """A hole is shown by a packet that goes through it, in words, and the rule is named."""
    rules = ruleset(*CLOSED, f"{DATABASE} -s 10.0.0.0/7 -j ACCEPT")
    model = model_of(rules)
    packets = new_tcp(model, 5432).narrowed(OUTSIDE)
    answer = find(model, packets, accepted)
    assert isinstance(answer, Counterexample)
    witness = model.witness(packets, answer.values)
    assert str(witness.packet.source).startswith("11.")
    assert witness.packet.destination_port == 5432
    assert witness.packet.flags == {"SYN"}
    assert witness.decided.verdict is Verdict.ACCEPT
    assert witness.decided.rule == rules.tables["filter"].chains["INPUT"].rules[0]
    assert witness.words.startswith("tcp 11.")


def test_an_answer_depends_on_what_is_not_modelled_only_if_it_must() -> None:
    """Where a packet is accepted in any case, it is a counterexample, whatever an earlier match does. Where all packets
    depend on a match, the answer names it."""
    limit, accept = f"{DATABASE} -m limit --limit 1/sec -j ACCEPT", f"{DATABASE} -j ACCEPT"
    model = model_of(ruleset(*CLOSED, limit, accept))
    assert isinstance(find(model, new_tcp(model, 5432), accepted), Counterexample)
    model = model_of(ruleset(*CLOSED, limit))
    answer = find(model, new_tcp(model, 5432), accepted)
    assert isinstance(answer, Possible)
    assert [part.words for part in answer.depends] == ["-m limit --limit 1/sec"]
    model = model_of(ruleset(*CLOSED, f"{limit.replace('ACCEPT', 'DROP')}", f"{DATABASE} -s 10.0.0.0/8 -j ACCEPT"))
    assert find(model, new_tcp(model, 5432).narrowed(OUTSIDE), accepted) == Proved()


def test_an_answer_looks_for_a_packet_that_depends_on_nothing() -> None:
    """Of two holes, one that depends on a match and one that does not, the second one is the answer."""
    timed = "-A INPUT -p tcp -m tcp --dport 1:1000 -m time --timestart 08:00:00 -j ACCEPT"
    model = model_of(ruleset(*CLOSED, timed, "-A INPUT -p tcp -m tcp --dport 7000 -j ACCEPT"))
    answer = find(model, new_tcp(model), accepted)
    assert isinstance(answer, Counterexample)
    assert answer.values.fields[PacketField.DPORT] == 7000


def test_two_rulesets_are_compared_for_all_packets() -> None:
    """The same rules in another spelling treat every packet alike; other ones do not, and a packet shows it. A match of
    the same text that is not modelled has the same answer in both."""
    timed = "-A INPUT -p tcp -m tcp --dport 22 -m time --timestart 08:00:00 -j ACCEPT"
    before = ruleset(*CLOSED, timed, "-A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT")
    same = ruleset(
        *(*CLOSED, "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT", "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT", timed)
    )
    other = ruleset(*CLOSED, timed, "-A INPUT -p tcp -m tcp --dport 80:443 -j ACCEPT")
    known = surroundings(before.family, [before, same, other], HOST)
    models = [Model.of(rules, known) for rules in (before, same, other)]
    packets = new_tcp(models[0])

    def differs(number: int) -> object:
        return find(
            models[0], packets, lambda one, scope: differ(one.accept, models[number].outcome(packets, scope).accept)
        )

    assert differs(1) == Proved()
    answer = differs(2)
    assert isinstance(answer, Counterexample)
    assert 80 < answer.values.fields[PacketField.DPORT] < 443


def test_a_mark_and_nat_are_part_of_a_proof() -> None:
    """What rules make of a packet is followed: a mark of mangle, and the port behind DNAT."""
    model = model_of(
        ruleset(
            *("*mangle", ":PREROUTING ACCEPT", "-A PREROUTING -s 10.0.0.0/8 -j MARK --set-xmark 0x1/0xff", "COMMIT"),
            *("*nat", ":PREROUTING ACCEPT", "-A PREROUTING -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 5432"),
            *("COMMIT", "*filter", *CLOSED, f"{DATABASE} -m mark --mark 0x1/0xff -j ACCEPT"),
        )
    )
    assert find(model, new_tcp(model).narrowed(OUTSIDE), accepted) == Proved()
    assert isinstance(find(model, new_tcp(model, 81), accepted), Counterexample)
    assert find(model, new_tcp(model, 82), accepted) == Proved()


def test_a_solver_has_a_time_limit_and_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its end the solver answers with an error, as for text that it does not understand; where z3 is not
    installed, the message says how to install it."""
    with Solver(time.monotonic()) as solver, pytest.raises(SolverTimeoutError):
        solver.ask("(check-sat)")
    with Solver(time.monotonic() + LONGEST) as solver:
        with pytest.raises(SolverFailedError, match="z3 reports"):
            solver.ask("(assert 7)")
        assert solver.ask("(check-sat)").strip() == "sat"
    monkeypatch.setattr(z3_solver, "find_spec", lambda _name: None)
    assert not z3_solver.is_installed()
    with pytest.raises(SolverMissingError, match="apt install python3-z3"):
        Solver(time.monotonic())
