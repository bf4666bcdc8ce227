"""The control socket between fwguardctl and the daemon: protocol, results, server and client. It decides nothing."""
