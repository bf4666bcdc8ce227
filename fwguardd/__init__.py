"""fwguardd keeps a host's iptables firewall equal to the files in /etc/fwguard.d."""

__version__ = "0.1.0"
