"""The kernel log, opened by somebody who may, for a daemon that may not.

fwguardd-kmsg.socket starts this module on a connection, with CAP_SYSLOG and next to nothing else. It opens /dev/kmsg,
hands the descriptor over (unix(7), SCM_RIGHTS), and ends. The kernel asks for the permission when the log is opened and
not when it is read (devkmsg_open() in kernel/printk/printk.c), so the daemon needs no capability for it, and no device.
"""

from __future__ import annotations

import array
import os
import socket
import sys
from pathlib import Path

LOAN_SOCKET = Path("/run/fwguard/kmsg.sock")
"""Where fwguardd-kmsg.socket listens. Only root may connect."""

_SECONDS = 5.0
"""How long the loan may take; a lender starts in a tenth of a second."""


def borrow() -> int | None:
    """A descriptor of the kernel log, opened for reading without waiting; None where nobody lends one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(str(LOAN_SOCKET))
            _, lent, _, _ = socket.recv_fds(connection, 1, 1)
        except OSError:
            return None
    return lent[0] if lent else None


def main() -> int:
    """Lend the kernel log to whoever is at the other end of standard input."""
    with socket.socket(fileno=os.dup(0)) as connection:
        try:
            log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            print(f"fwguardd: /dev/kmsg cannot be opened, so it cannot be lent: {error.strerror}", file=sys.stderr)
            return 1
        connection.sendmsg([b"k"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [log]))])
    return 0


if __name__ == "__main__":
    sys.exit(main())
