"""fwguardd keeps a host's iptables firewall equal to the files in /etc/fwguard.d, and reports what the kernel denied.

Package layout. Each package imports only from packages below it; tests/unit/test_architecture.py has the exact list::

    daemon, ctl          the two programs: fwguardd (event loop and worker thread), fwguardctl (command line)
      verbs              the verbs of the control socket: one table from the name to the function
      shown_revision     the process that reads a revision for ``show``
      supervisor         event loop: decides what the worker thread does next, and whether drift is repaired
      worker, progress   worker thread: runs passes, verbs and timeouts, one after the other; marks for the watchdog
      worker_thread      the event loop's end of that thread
      held_files         the option --hold-files
      interpreter        the interpreter and the heap of the process
      fetch_lists        a program of its own, which fetches lists into set files
      dns_lookup         the addresses of host names, with their TTL
      whole_check        the whole rehearsal that checks one in parts, when nothing waits for it
      worker_report      values that the event loop and the worker thread hand to each other
      metrics            what is counted, as Prometheus reads it: the file, and a program that serves it over HTTP
      proving            what sends packets through accepted files in the worker thread
      systemd            notifications that never block, and the watchdog of both threads
      denial_reader      reads denials in the event loop: source, timers, checkpoint
      documents          builds the results of the verbs from the state of the daemon
      control            the control socket between the programs: protocol and documents (pure), server, client
      enforce            decides and applies: rule_files, validate, reconcile, transaction, rollback, schedule, watch
      store              files in the state directory: revisions, boot files, pending confirmation
      sinks              where events go: journal, JSON lines, terminal
      options, settings  the daemon's command line; every setting with its default
      setting_values     values of settings: durations, paths, lists
      setting_nodes      the text of the settings as nodes of YAML
      defaults           paths and names that fwguardctl needs without the settings
      values             the dataclass of this package, made faster than by the standard library
      patterns           regular expressions that are compiled when they are used first
      threads            threads whose start never waits for ever
      event_loop         asyncio, without TLS
      process_end        the end of a program without that of its interpreter
      left_out           imports without what they can do without
      errors             the bases of errors that a program prints and ends with
      dependencies       the message where a Python module of another package is not installed
      denials            LOG lines and NFLOG packets -> events: line_parser, packets, aggregation, pipeline
        kernel           thin I/O: iptables programs, rehearsal namespaces, netlink notices and authors, kmsg, NFLOG, z3
          proof          rulesets as formulas over all packets, pure: what a solver can prove of them
          packets        packets through a ruleset, pure: packets, journeys, hosts, frames
          ruleset        the language of rule files, pure: parser, compose, lint, diff, plan, preserve, known_programs
          events         every event, with its MESSAGE_ID, priority and meaning; event_fields has their fields
          wording        numbers and times in messages
          escaping       text that is safe to print

Pipeline 1, rule files -> kernel, is one pass (`enforce.reconcile`): take a snapshot of the directory, parse, compose,
lint, rehearse, read the live tables, write the smallest change, verify. If a step fails, the ruleset that was in force
before is in force afterwards: the load is undone, and the undo is verified as a load is (`enforce.transaction`;
`enforce.rollback` has the verb rollback, and the end of what was not confirmed in time). A rehearsal
(`kernel.rehearsal`) loads the candidate with the host's iptables into the running kernel, in a temporary network
namespace; what iptables-save prints there is the canonical text, which the live tables are compared with from then on.
What belongs to another program in an owned table is decided by pattern in `ruleset.preserve` (`own_part`), else by the
kind of process that added it in `enforce.others` (`recognize`).

Pipeline 2, kernel log -> events (`denials.pipeline`): read records, keep LOG lines with a watched prefix, parse,
aggregate by flow, emit. Every line that was read is part of an event or of a count, and every lost record is counted.

The event loop waits; the worker thread is the only code that changes the kernel. Two threads read who changed the
rules, and hand values to the event loop (`kernel.changes`, `kernel.process_watch`). The pipelines share only a table
that says which rule in force logs with which prefix.

A bed is a rehearsal namespace that has the interfaces, addresses and routes of a host (`packets.host`). Packets are
sent through the ruleset there, and the kernel's own trace says which rules each met, and what became of it.

Types that carry promises: a transaction takes only a `ruleset.canonical.Canonical`. Rule files become one only in a
rehearsal, and a test lists the other places that may make one. A pass returns `Done`, `Refused`, `Failed` or `Broken`
(`enforce.context`), each with the `State` after it. What an author can correct is a `Finding`, a value; what prevents
going on is an exception.

Glossary::

    author               the process that changed the rules; events have it in the fields culprit_*
    bed                  a rehearsal namespace with the interfaces, addresses and routes of a host, for packets
    candidate            a composed ruleset that has not been rehearsed
    canonical text       rules in the spelling of iptables-save
    checkpoint           the position in the source of denials, with the counts that are not reported yet
    denial               a packet that a rule with a watched prefix has logged
    drift                a difference between the live tables and the ruleset in force that is not preserved
    emergency set        rules that are loaded when no revision can be: ssh, DHCP and little else
    fight                repeated drift in the same chains; repairs stop for a while
    finding              an error or a warning about rule files: code, file, line, message, advice
    flow                 denials of one source address to one port of one destination address
    held files           rule files that are not applied until a reload asks for it
    in force             loaded, and verified by reading the kernel
    journey              what the kernel did with one packet in a bed: the rules that it met, and the verdict
    known program        a program whose chains and rules are recognized, such as Docker
    origin               file and line of a rule
    other rules          rules of other programs in owned tables: kept (added by a systemd service), undecided, removed
    owned table          a table that a rule file names; fwguardd decides about all rules in it that are not preserved
    pass                 one run of pipeline 1
    pending confirmation a revision that is rolled back unless it is confirmed in time
    preserve             to leave chains and rules of other programs unchanged in an owned table
    rehearsal            loading a candidate in a temporary network namespace
    repair               loading the ruleset in force again because of drift
    revision             a numbered ruleset that was in force, kept on disk with its files
    ruleset              the tables of one family, with chains, policies and rules
    sink                 a destination of events
    source               where denials are read from: kmsg, journal or nflog
    suppression          the comment `# fwguard: allow CODE`, which silences a warning
    transaction          loading both families so that either all tables change or none do
    unverified           the kernel could not be read, so whether the ruleset is in force is not known
"""

__version__ = "0.1.0"
