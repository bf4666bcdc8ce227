"""The kernel and the programs of iptables: thin I/O with no policy of its own."""
