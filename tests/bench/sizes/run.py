"""One run: every program at every size, in turns, so that a busy moment of the machine meets them all."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.sizes.figures import BARE, LOADED, OURS, SHIPPED, Figures, machine
from tests.bench.sizes.ours import Guard
from tests.bench.sizes.peers import PEERS, Loader, Peer, unpacked
from tests.bench.sizes.place import Place, PlaceError
from tests.bench.sizes.rules import Rules, save_text, save_text_ipv6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NEW: Final = "new ruleset"
EDIT: Final = "edit of one rule"
SAME: Final = "nothing changed"
PANELS: Final = (NEW, EDIT, SAME)
"""What the plot shows."""

_BOOT: Final = "start at boot"

_VERBS: Final = (("--help",), ("status",), ("history",))

_TOO_LONG: Final = 15.0
"""Seconds: a program that took longer for one load is not asked to load a larger ruleset, nor the same again."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured: rounds by size, which other programs, the seconds of idleness, whether the shipped rules
    are measured too, and the seconds after which no further round begins, and no other program is started."""

    rounds: dict[int, int]
    peers: tuple[Peer, ...] = PEERS
    idle: float = 60.0
    backend: str = "nft"
    shipped: bool = True
    limit: float = 600.0


@dataclass(slots=True)
class _Run:
    amount: Amount
    figures: Figures
    report: Callable[[str], None]
    end: float
    slow: set[str] = field(default_factory=set)


def measure(amount: Amount, report: Callable[[str], None]) -> Figures:
    """Measure all of it, or what there is time for until SIGINT. ``report`` gets a line about each step."""
    sizes = (*((SHIPPED,) * amount.shipped), *amount.rounds)
    run = _Run(amount, Figures(machine(), sizes), report, time.monotonic() + amount.limit)
    try:
        _all_sizes(run)
    except KeyboardInterrupt:
        run.figures.left_out.append("all that would have followed: the run was interrupted")
    return run.figures


def _all_sizes(run: _Run) -> None:
    if run.amount.shipped:
        _shipped(run)
    for size, rounds in run.amount.rounds.items():
        if _late(run):
            run.figures.left_out.append(f"{size:,} rules: there was no time left")
            continue
        run.report(f"{size:,} rules, {rounds} rounds")
        with contextlib.ExitStack() as places:
            _size(run, size, rounds, places)


def _late(run: _Run) -> bool:
    return time.monotonic() > run.end


@contextlib.contextmanager
def _place(packages: Path | None = None) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="fwguardd-bench-") as folder:
        place = Place(Path(folder), packages)
        try:
            yield place
        finally:
            place.close()


@contextlib.contextmanager
def _guard(backend: str) -> Iterator[Guard]:
    with _place() as place:
        guard = Guard(place, backend)
        try:
            yield guard
        finally:
            guard.close()


def _shipped(run: _Run) -> None:
    """What does not depend on the number of rules, with the rules that fwguardd is shipped with."""
    run.report("the shipped rules")
    rounds = max(run.amount.rounds.values())
    with _guard(run.amount.backend) as guard:
        guard.write(None)
        guard.start()
        for _ in range(rounds):
            _starts(run, SHIPPED, guard)
            for words in (*_VERBS, ("diff", "--rules-dir", str(guard.rules)), ("check", str(guard.rules))):
                _add(run, SHIPPED, f"fwguardctl {words[0]}", OURS, guard.verb(*words))
        _memory(run, SHIPPED, guard)
        if run.amount.idle:
            for what, value in guard.idle(run.amount.idle).items():
                run.figures.add(SHIPPED, what, OURS, value, "ms a minute" if "time" in what else "a minute")


def _size(run: _Run, size: int, rounds: int, places: contextlib.ExitStack) -> None:
    rules = Rules(size)
    bare, guard = places.enter_context(_place()), places.enter_context(_guard(run.amount.backend))
    guard.write(rules)
    guard.start()
    loaders = list(_loaders(run, rules, places))
    for number in range(rounds):
        if number and _late(run):
            break
        for what, changed in ((NEW, rules.renewed()), (EDIT, rules.renewed().edited())):
            _add(run, size, LOADED, BARE, _bare(bare, changed))
            guard.write(changed)
            _add(run, size, what, OURS, guard.reload())
            for loader in loaders:
                _load(run, size, what, loader, changed)
        rules = rules.renewed().edited()
        guard.touch()
        _add(run, size, SAME, OURS, guard.reload())
        _memory(run, size, guard)
        for loader in loaders:
            _load(run, size, SAME, loader, None)
        _starts(run, size, guard)
        _changes(run, size, guard)
        _add(run, size, "fwguardctl check", OURS, guard.verb("check", str(guard.rules)))


def _bare(place: Place, rules: Rules) -> float:
    both = (("iptables-nft-restore", save_text(rules)), ("ip6tables-nft-restore", save_text_ipv6()))
    return sum(place.run(program, text=text) for program, text in both)


def _loaders(run: _Run, rules: Rules, places: contextlib.ExitStack) -> Iterator[Loader]:
    """The other programs that take this many rules, with their rules loaded as at boot."""
    for peer in run.amount.peers:
        if rules.count > peer.largest or peer.name in run.slow or _late(run):
            run.figures.left_out.append(f"{peer.name} with {rules.count:,} rules: it takes too long")
            continue
        try:
            place = places.enter_context(_place(unpacked(*peer.packages)))
            loader = Loader(peer, place)
            places.callback(loader.close)
            loader.write(rules)
            _add(run, rules.count, _BOOT, peer.name, loader.boot())
        except PlaceError as error:
            run.figures.left_out.append(f"{peer.name} with {rules.count:,} rules: {error}")
        else:
            yield loader


def _load(run: _Run, size: int, what: str, loader: Loader, rules: Rules | None) -> None:
    """Let another program load these rules, or the same again."""
    name = loader.peer.name
    if name in run.slow:
        return
    try:
        if rules is not None:
            loader.write(rules)
        seconds = loader.load()
    except PlaceError as error:
        run.figures.left_out.append(f"{name} with {size:,} rules: {error}")
        run.slow.add(name)
        return
    if seconds > _TOO_LONG:
        run.slow.add(name)
    _add(run, size, what, name, seconds)


def _starts(run: _Run, size: int, guard: Guard) -> None:
    """A restart, and a boot: the boot loader, then the daemon."""
    guard.stop()
    _add(run, size, "restart, exec to READY", OURS, guard.start())
    run.figures.add(size, "restart, processor time to READY", OURS, 1000 * guard.processor_time(), "ms of processor")
    guard.stop()
    _add(run, size, "boot loader", OURS, guard.boot())
    _add(run, size, "start after the boot loader, exec to READY", OURS, guard.start())
    guard.stop()
    guard.flush()
    _add(run, size, "start without rules in the kernel, exec to READY", OURS, guard.start())


def _changes(run: _Run, size: int, guard: Guard) -> None:
    """Changes by another program, which only nf_tables gives notice of."""
    if run.amount.backend != "nft":
        return
    for _ in range(3):
        noticed, repaired = guard.foreign_change()
        _add(run, size, "foreign change, until it is reported", OURS, noticed)
        _add(run, size, "foreign change, until it is repaired", OURS, repaired)


def _memory(run: _Run, size: int, guard: Guard) -> None:
    for what, value in guard.memory().items():
        run.figures.add(size, what, OURS, value, "MiB")


def _add(run: _Run, size: int, what: str, program: str, seconds: float) -> None:
    run.figures.add(size, what, program, 1000 * seconds)


def amounts(*, quick: bool, peers: Sequence[Peer] = PEERS) -> Amount:
    """What packaging/bench measures: in about twelve minutes, or in three."""
    if quick:
        return Amount({10: 3, 100: 3, 1_000: 3, 10_000: 1}, tuple(peers), idle=10.0, limit=150.0)
    return Amount({10: 7, 100: 7, 1_000: 5, 10_000: 3, 50_000: 2, 100_000: 1}, tuple(peers))
