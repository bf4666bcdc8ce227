"""The rehearsal worker: loads rulesets in the network namespace that it is started in.

Its client is at the other end of the socket on its standard input. The namespace comes from `unshare`, with privilege
or in a user namespace, or from systemd with PrivateNetwork=yes. The worker runs only the restore and save programs of
iptables, and makes empty ipsets and other objects that rules name. It ends when the client closes the socket, and its
namespace ends with it.

The protocol: one JSON document a line. A request is ``{"backend": "nft"|"legacy", "family": 4|6, "steps": [STEP, …]}``,
a step ``{"restore": TEXT, "noflush": bool}`` or ``{"save": true}``; no step runs after one that failed. With
``"rules": true`` in a step its result has ``"rules"``, what nf_tables has then (`fwguardd.kernel.rule_bytes`).

A request may have ``"sets": {NAME: FAMILY, …}``, ipsets to make before the first step (`fwguardd.kernel.ipsets`), and
``"objects"``, a list of `fwguardd.kernel.named_objects.NamedObject`. The answer is ``{"results": [RESULT, …]}`` with a
``{"code": n, "stdout": "…", "stderr": "…", "save": bool}`` for each step that ran, or ``{"error": "…"}``.

A request with ``"bed": HOST``, a document of `fwguardd.packets.host`, rebuilds the network of that host first.
``"set_copies"`` are ipsets with entries (`fwguardd.kernel.ipset_copies`); those that could not be copied are in
``"empty_sets"`` of the answer. ``"loads"`` is a list of families with their steps, and may come again by itself;
``"translates"`` says whether the rules have NAT. ``"edits"`` (`fwguardd.kernel.bed_edits`) do the same as the loads,
which run only where the kernel refuses the edits. Otherwise the answer has ``"edited": true``. After it a request
``{"packets": [PACKET, …]}`` sends packets through the rules; the answer is ``{"journeys": [JOURNEY, …]}``
(`fwguardd.kernel.bed_worker`). ``{"prepare": "bed"}`` announces a bed, and has no answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from fwguardd.errors import ReportedError
from fwguardd.kernel.processes import Command, ProgramError, Running, restore_argv, save_argv
from fwguardd.kernel.rule_bytes import RuleBytes, rules_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.kernel.bed_worker import BedWorker

STEP_SECONDS = 60.0
"""The longest that one restore or save may take in a rehearsal; 100,000 rules take 2 s, or 18 s in small commits."""

_PREPARE_BED = b'{"prepare": "bed"}\n'
_LOCK_FD = 3
_SO_NETNS_COOKIE = 71
"""asm-generic/socket.h; Python 3.11 does not define it."""


def main() -> int:
    """Serve requests until the other side closes the socket."""
    with socket.socket(fileno=os.dup(0)) as connection:
        if not in_own_namespace(connection):
            print("fwguardd: a rehearsal worker refuses to run in the network namespace of its client", file=sys.stderr)
            return 1
        with contextlib.suppress(ConnectionError):  # The client has closed the connection.
            _serve(connection)
    return 0


def _serve(connection: socket.socket) -> None:
    beds: list[BedWorker] = []
    with connection.makefile("rwb") as stream:
        for line in stream:
            if line == _PREPARE_BED:
                _import_bed()
                continue
            stream.write(json.dumps(answer(line, beds)).encode() + b"\n")
            stream.flush()


def _import_bed() -> None:
    """Import the modules of a bed before one is asked for: that takes longer than to make it."""
    import fwguardd.kernel.bed_worker  # noqa: F401, PLC0415


def in_own_namespace(connection: socket.socket) -> bool:
    """Whether this process's network namespace is another one than that of its client.

    A worker in the namespace of its client would replace the firewall there. A connected socket belongs to the
    namespace of the process that made it or that called connect(2) (net/unix/af_unix.c), and SO_NETNS_COOKIE (since
    Linux 5.14) identifies it. If it cannot be read, the answer is no.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as here:
            own, clients = (end.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) for end in (here, connection))
    except OSError:
        return False
    return own != clients


def answer(line: bytes, beds: list[BedWorker]) -> dict[str, Any]:
    """The answer to one request; an ``error`` if the request is invalid or a program cannot be run.

    ``beds`` holds the bed of this namespace, once a request has made it.
    """
    try:
        return _answer(json.loads(line), beds)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"bad request: {error}"}
    except (ProgramError, ReportedError) as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"no packets can be sent through the rules: {error.strerror or error}"}


def _answer(request: dict[str, Any], beds: list[BedWorker]) -> dict[str, Any]:
    if "packets" in request:
        return {"journeys": beds[0].send(request["packets"])}
    if "bed" in request:
        return _bed_answer(request, beds)
    if "loads" in request:
        return _load(request, beds[0])
    _make_named(request)
    return {"results": list(_run_steps(request["backend"], request["family"], request["steps"]))}


def _bed_answer(request: dict[str, Any], beds: list[BedWorker]) -> dict[str, Any]:
    """Make a bed and load the rules into it."""
    # Most workers only rehearse: they start faster without the modules of a bed.
    from fwguardd.kernel.bed_worker import BedWorker  # noqa: PLC0415
    from fwguardd.kernel.ipset_copies import make_copies_of_sets  # noqa: PLC0415

    beds.append(BedWorker(request["bed"], request["backend"]))
    _make_named(request)
    empty = make_copies_of_sets(request["set_copies"])
    return _load(request, beds[0]) | {"left_out": beds[0].left_out, "empty_sets": empty}


def _load(request: dict[str, Any], bed: BedWorker) -> dict[str, Any]:
    """Load rules into a bed: by an edit, if the kernel takes it."""
    translates = request["translates"]
    if request.get("edits") and bed.edit(request["edits"], translates=translates):
        return {"results": [], "edited": True}
    results: list[dict[str, Any]] = []
    for load in request["loads"]:
        results += _run_steps(request["backend"], load["family"], load["steps"])
    bed.learn_rules(translates=translates)
    return {"results": results}


def _make_named(request: dict[str, Any]) -> None:
    """Make empty copies of the sets, and the objects, that rules name. Raises SetCopyError."""
    if request.get("sets"):
        from fwguardd.kernel.ipsets import make_empty_copies  # noqa: PLC0415 - as above.

        make_empty_copies(request["sets"])
    if request.get("objects"):
        from fwguardd.kernel.named_objects import NamedObject, make_copies  # noqa: PLC0415 - as above.

        make_copies(NamedObject(*one) for one in request["objects"])


def _run_steps(backend: str, family: int, steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        running = _start(backend, family, step)
        try:
            rules = _rules(family, step)  # Beside the program.
        finally:
            finished = running.finish(time.monotonic() + STEP_SECONDS)
        result = {"code": finished.code, "stdout": finished.stdout, "stderr": finished.stderr, **rules}
        yield result | {"save": bool(step.get("save"))}
        if finished.code != 0:
            return


def _rules(family: int, step: dict[str, Any]) -> dict[str, Any]:
    """The rules that nf_tables has, where a step asks for them. Raises OSError."""
    if not step.get("rules"):
        return {}
    return {"rules": list(map(RuleBytes.as_hex, rules_of(family) or ()))}


def _start(backend: str, family: int, step: dict[str, Any]) -> Running:
    if step.get("save"):
        return Running(Command(save_argv(backend, family)))
    argv = restore_argv(backend, family, noflush=bool(step.get("noflush")), lock_seconds=5)
    # Legacy iptables has one lock for the whole host. A rehearsal must neither wait for it nor hold it, so each program
    # locks a memory file of its own.
    lock = os.memfd_create("xtables.lock")
    try:
        variables = {"XTABLES_LOCKFILE": f"/proc/self/fd/{_LOCK_FD}"}
        return Running(Command(argv, step["restore"], variables, {_LOCK_FD: lock}))
    finally:
        os.close(lock)


if __name__ == "__main__":
    sys.exit(main())
