"""The control socket: what fwguardctl asks of the daemon, and how the daemon answers. It decides nothing by itself."""
