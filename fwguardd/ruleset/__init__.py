"""The ruleset language, as pure code: no room here touches a file, a clock, a process or a socket."""
