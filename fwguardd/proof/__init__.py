"""A model of rulesets over all packets: what `fwguardd.packets` shows of a packet by sending it, this proves of all.

How a ruleset becomes a formula: `reading` reads each rule's text (`matches`, `targets`) into `parts`; `walk` follows
the chains of a table, `traversal` the tables in the order of the hooks, with connection tracking, NAT and routing
between them. A match or target that is not modelled is a variable of its own, a `formulas.FreePart` with its origin.

How to ask::

    known = host_view.surroundings(family, [before, after], host, set_files)     # shared by rulesets that are compared
    reader = reading.RuleReader(known)
    model = model.Model.of(before, known, reader)
    packets = packet_sets.all_packets(known, Direction.INBOUND).narrowed({Field.DPORT: intervals.single(5432)})
    with Solver(time.monotonic() + seconds) as solver:                           # fwguardd.kernel.z3_solver
        answer = model.find(packets, lambda outcome, scope: outcome.accept, solver)

`answers.Proved`: no such packet. `Counterexample`: this packet, whatever the free parts are. `Possible`: this packet if
the free parts ``depends`` are as they are in its values. ``model.witness(packets, answer.values)`` is the packet as one
that can be sent, in words, and the rule that decides about it. Nothing is guessed: without an answer in time the solver
raises `fwguardd.errors.ReportedError`.

To compare two rulesets, build both in one scope: variables of the same name are the same, also those of free parts in
rules of the same text::

    def differs(outcome, scope):
        return formulas.differ(outcome.accept, other.outcome(packets, scope).accept)

`differences` tells all packets that two rulesets treat otherwise, as `packet_classes` (in `class_words`, and with rules
and witnesses in `described_classes`): `changes` says which packets can differ at all, `questions` keeps the solver
between them, and `needed` takes from a packet what does not decide. `dead_rules`, `shorter` and `one_family` answer
about one ruleset, and `rule_findings` makes warnings of that.

To ask about a rule: ``outcome.visits`` are the chains that packets enter, each with its rules (`walk.Meeting`): a
packet meets a rule if ``visit.entered()`` and ``meeting.comes``, and the rule matches it if ``meeting.matches`` too.

`concrete.set_of` is the set of one packet: there every formula is True or False, or depends on free parts; no solver is
needed. `formulas.differ`, `both`, `without`, `any_of`, `all_of` and `negation` combine formulas.
"""
