"""fwguardd keeps a host's iptables firewall equal to the files in /etc/fwguard.d, and tells what the kernel denied.

The house, and who may call whom (a test holds the imports to it)::

    daemon, ctl        the two programs: what waits and lets the steward act, one thing at a time; what asks and looks
      listener         the road of denials in the daemon's loop: source, timers, where it stands
      control          the socket between the two: protocol (pure), server, client
      enforce          decide and carry out: rule_files, read_directory, reconcile, transaction; undo, guard, watch
      store            what is kept on disk: revisions, boot files, what waits to be confirmed
      denials          LOG lines, NFLOG packets -> events: parse, packets, flow, tally, telling (pure), taking, tail
      outlets          where events go: the journal, JSON, a terminal
        kernel         I/O, thin: iptables' programs, scratch namespaces and rehearsals, change notices, kmsg, NFLOG
          ruleset      the language, pure: text, compose, lint, render, complaints, diff, plan; who else lives there
    settings, events   every default; every event

The road of a rule file, one pass of `enforce.reconcile`: snapshot the directory, read, compose, lint, rehearse, look at
the live kernel, write the smallest change, verify, or undo and verify that. Whatever fails, at whatever instant, the
ruleset in force before is in force after. While a burst of changes settles the files are already rehearsed.

A rehearsal loads the candidate with the real iptables into the real kernel, in a network namespace that is thrown away
afterwards (`kernel.rehearsal`). What iptables-save prints there is the canonical text: what the live kernel is compared
with from then on. The packet counters of the load carry each rule's origin through the kernel and back.

The types carry the promise: a transaction takes a `ruleset.canonical.Canonical` and nothing else. Rule files become one
in a rehearsal only, and a test holds who may make one otherwise. What a person can mend is a `Finding`, a value; what
cannot be gone on with is an exception.

One asyncio loop waits and one worker thread acts. The road of denials is handed a table, which rule in force logs with
which prefix, and shares nothing else with the road of rules.
"""

__version__ = "0.1.0"
