"""``fwguardctl test --write``: policy tests of what is in force now, for an administrator to keep or to correct."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING

from fwguardd.ctl.offline_verbs import DONE
from fwguardd.ctl.policy_run import beds_of_this_host, host_of, rules_in_kernel
from fwguardd.errors import ReportedError
from fwguardd.kernel.accounts import ACCOUNTS
from fwguardd.kernel.iptables import IptablesNotPermittedError, find_tool
from fwguardd.kernel.privilege import CAP_NET_ADMIN, has_capability
from fwguardd.kernel.sockets import listening_sockets
from fwguardd.packets.assumed_host import interfaces_of
from fwguardd.packets.host_routes import host_routes
from fwguardd.packets.policy_cases import cases_of
from fwguardd.packets.tests_file import read_policy_tests
from fwguardd.packets.written_tests import probes, written
from fwguardd.ruleset.model import RuleFile
from fwguardd.wording import counted

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.ctl.offline_verbs import OfflineInput


class TestsFileError(ReportedError):
    """The tests were not written."""


def write_tests(source: OfflineInput, path: Path) -> int:
    """Write tests of what is in force to a new file, or to standard output for "-". Raises ReportedError."""
    if not has_capability(CAP_NET_ADMIN):
        raise IptablesNotPermittedError("only root may read the rules in the kernel; run it as root")
    text = _tests_of_this_host(source)
    if str(path) == "-":
        sys.stdout.write(text)
        return DONE
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise TestsFileError(f"{path} cannot be written: {error.strerror}; name a new file") from error
    print(f"{path}: {counted(text.count('expect:'), 'test')}; read them, and remove what is not meant to stay so")
    return DONE


def _tests_of_this_host(source: OfflineInput) -> str:
    """Raises NamespaceError, KernelError, TestsFileError."""
    tool, host = find_tool(source.backend), host_of(None)
    try:
        tried = list(probes(listening_sockets(), host_routes(host)))
    except OSError as error:
        raise TestsFileError(f"the listening sockets cannot be listed: {error.strerror}") from error
    text = "\n".join(["tests:", *(probe.test for probe in tried)])
    read = read_policy_tests([RuleFile("probes", text.encode())], ACCOUNTS)
    packets = cases_of(read.tests, interfaces_of(host)).packets
    with beds_of_this_host(tool.backend.value) as beds, beds.prove(rules_in_kernel({}, tool.backend), host) as bed:
        outcomes = bed.send(packets)
    made = time.strftime("%Y-%m-%d %H:%M")
    return written(tried, outcomes, f"What was in force on {socket.gethostname()} at {made} (fwguardctl test --write).")
