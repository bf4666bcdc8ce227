"""Packets: what is sent through a ruleset in a rehearsal namespace, and what the kernel did with it; all of it pure."""
