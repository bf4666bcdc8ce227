"""Thin I/O: netlink, /dev/kmsg, /proc, and the programs of iptables. Decisions are made in other packages."""
