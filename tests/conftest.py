"""What all tests share: the seed of random choices, the marks of whole directories, and the lock of the kernel log."""

from __future__ import annotations

import fcntl
import functools
import gc
import os
import random
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import hypothesis
import pytest

from tests.scale import SCALE, backends_of_either, examples, scaled

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

TESTS: Final = Path(__file__).parent
DEFAULT_EXAMPLES: Final = scaled(gate=examples(40), long=3000)
"""Those of a property that does not say how many it wants."""

MARKS: Final = {"netns": ("root",), "system": ("root", "systems"), "bench": ("bench",), "property": ("long",)}
"""The marks of every test in a directory."""

SEED: Final = pytest.StashKey[int]()

hypothesis.settings.register_profile("fwguardd", max_examples=DEFAULT_EXAMPLES, deadline=None, print_blob=True)
hypothesis.settings.load_profile("fwguardd")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --seed."""
    parser.addoption(
        "--seed",
        type=int,
        default=int(os.environ["FWGUARD_TEST_SEED"]) if os.environ.get("FWGUARD_TEST_SEED") else None,
        help="the seed of all random choices, hypothesis' included; default: $FWGUARD_TEST_SEED, or a new one",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed before hypothesis reads its own option. A worker of pytest-xdist has got both from its parent.

    A run in the background of a shell ignores SIGINT, and so would every program that a test starts and interrupts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1 << 32)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(config.option.seed)
    config.stash[SEED] = config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    """The seed is printed with every run."""
    return f"seed: {config.stash[SEED]} (repeat with --seed={config.stash[SEED]}), scale: {SCALE}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The seed is printed with every failure."""
    report = yield
    if report.failed:
        report.sections.append(("Seed", f"repeat with --seed={item.config.stash[SEED]}"))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test with the mark either_backend, if it names no backend itself, those of `backends_of_either`."""
    marks = metafunc.definition.iter_markers("parametrize")
    named = any("backend" in mark.args[0] for mark in marks)
    if metafunc.definition.get_closest_marker("either_backend") and "backend" in metafunc.fixturenames and not named:
        metafunc.definition.add_marker(pytest.mark.parametrize("backend", backends_of_either(), indirect=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of whole directories, those that have the fixture which sets nf_log_all_netns, and those with the
    mark either_backend. In a process of pytest-xdist, sort them by `_rank`."""
    for item in items:
        for name in _marks(item.path):
            item.add_marker(name)
        if "kernel_log_of_namespaces" in getattr(item, "fixturenames", ()):
            item.add_marker("kernel_log")
        if item.get_closest_marker("either_backend"):
            item.add_marker("long")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.nodeid.partition("::")[0]))


def pytest_collection_finish() -> None:
    """Keep the thousands of tests out of each later garbage collection, which would read all of their memory; in the
    processes that tests fork, it would even copy all of it."""
    gc.collect()
    gc.freeze()


@functools.cache
def _marks(path: Path) -> tuple[str, ...]:
    """The marks of all tests in a file."""
    return MARKS.get(path.relative_to(TESTS).parts[0], ())


@functools.cache
def _group(path: str) -> str:
    """The group of the tests in a file, "" for none: the tests of a group run one after the other in one process.

    All files that use the kernel log are one group. So is each file whose tests share what they set up, such as a
    booted machine, and each file with short tests only.
    """
    text = (TESTS.parent / path).read_text(encoding="utf-8")
    if "kernel_log" in text:
        return "kernel_log"
    if path.startswith(("tests/netns/", "tests/property/")) and 'scope="module"' not in text:
        return ""
    return path


@functools.cache
def _rank(path: str) -> int:
    """What is long begins first, so that no process still has much to do when the others have ended. But the root file
    system that tests/system boots may have to be made first, so property tests come before it."""
    if _group(path) == "kernel_log":
        return 0
    order = ("tests/property/", "tests/system/", "tests/netns/")
    return 1 + next((number for number, folder in enumerate(order) if path.startswith(folder)), len(order))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share the tests between the processes of pytest-xdist by `_group`, in the order of `_rank`, the others singly.

    (The mark xdist_group of pytest-xdist 3.8 has no effect with pytest 9.2, which keeps the id of a test elsewhere.)
    """
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - only there when this hook is called.

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # LoadScopeScheduling is untyped.
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.partition("::")[0]) or nodeid

    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run, for tests that choose at random."""
    return request.config.stash[SEED]


@pytest.fixture(scope="session")
def _kernel_log_lock() -> Iterator[int]:
    """A file that every checkout on this host locks while it uses the kernel log."""
    path = Path(tempfile.gettempdir()) / "fwguardd-tests-kernel-log.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(autouse=True)
def _one_reader_of_the_kernel_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests that use the kernel log wait for each other, in whichever process and checkout they run."""
    if request.node.get_closest_marker("kernel_log") is None:
        yield
        return
    descriptor: int = request.getfixturevalue("_kernel_log_lock")
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    fcntl.flock(descriptor, fcntl.LOCK_UN)
