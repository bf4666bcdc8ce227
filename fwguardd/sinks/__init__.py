"""Sinks take events: `sink` is the interface and the fan-out, `journal` sends events to systemd-journald, `stream`
writes them as JSON lines or, by `console`, for a terminal, and `choice` opens the sinks that the settings want."""
