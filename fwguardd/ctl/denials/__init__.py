"""fwguardctl denials: what the kernel denied, from the journal or from old kernel log lines.

``command`` is the verb. ``inputs`` reads the journal by journalctl, and lines from files; ``log_files`` makes events of
lines with the parser of the daemon. ``event`` is one event from either source, ``filters`` chooses events, ``times``
reads times and stamps. ``table``, ``top`` and ``formats`` (JSON, ECS) are the forms of the output.
"""
