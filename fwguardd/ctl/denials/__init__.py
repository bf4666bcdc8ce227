"""fwguardctl denials: what the kernel denied, from the journal, or from old kernel log lines.

`event` is one denial however it was read, `wanted` the filters, `moments` the words of --since. `stamps`, `lines` and
`old_lines` read text that a kernel log left behind, by the daemon's own road; `table`, `top`, `ecs` and `document` are
the forms of the answer. All of these are pure. `reading` and `journal` open files and run journalctl; `verb` is the
command.
"""
