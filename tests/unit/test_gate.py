"""The run of all tests: what fails beside others is run again alone, and what fails again fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gate import MOST_AGAIN

ROOT = Path(__file__).parents[2]

ONCE = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_first_time_only(number):
    seen = Path(f"seen{{number}}")
    first = not seen.exists()
    seen.touch()
    assert not first

def test_that_holds():
    pass
"""


def _gate(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(text)
    argv = [sys.executable, "-m", "tests.gate", "-q", "-p", "no:xdist"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_what_fails_once_is_named_and_does_not_fail_the_run(tmp_path: Path) -> None:
    """A test that passes alone is printed as a defect of its own, and the run is green."""
    run = _gate(tmp_path, ONCE.format(count=2))
    assert run.returncode == 0
    assert "2 tests failed beside the others and passed alone" in run.stdout
    assert "test_sample.py::test_first_time_only[1]" in run.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    ["def test_wrong():\n    assert False\n", ONCE.format(count=MOST_AGAIN + 1), "import nothing_like_this\n"],
    ids=["fails again", "too many", "cannot be collected"],
)
def test_what_is_broken_fails_the_run(tmp_path: Path, text: str) -> None:
    """A test that fails again, more failures than a busy machine explains, and an error of pytest are never green."""
    assert _gate(tmp_path, text).returncode != 0


def test_both_runs_have_one_seed(tmp_path: Path) -> None:
    """What fails by a random choice meets the same choice when it is run again, so that it cannot pass by chance."""
    noted = 'Path(f"seed-{first}").write_text(os.environ["FWGUARD_TEST_SEED"])'
    text = ONCE.format(count=1).replace("    seen.touch()", f"    seen.touch()\n    {noted}")
    assert _gate(tmp_path, f"import os\n{text}").returncode == 0
    first, second = (path.read_text() for path in tmp_path.glob("seed-*"))
    assert first == second


def test_a_green_run_is_one_run(tmp_path: Path) -> None:
    """Where nothing fails nothing is repeated."""
    run = _gate(tmp_path, "def test_right():\n    pass\n")
    assert run.returncode == 0
    assert "once more" not in run.stdout
