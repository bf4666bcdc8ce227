"""fwguardd with a given kind of author: a test says which kind of process the authors of changes are.

The file that the environment variable FWGUARD_TEST_KIND names holds the kind. Run as ``author_kinds.py PYTHON -m
fwguardd OPTIONS``, it becomes that daemon.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fwguardd import daemon
from fwguardd.kernel import attribution
from fwguardd.kernel.cgroups import ProcessKind

KIND = Path(os.environ["FWGUARD_TEST_KIND"])


def given_kind(_cgroup_text: str) -> ProcessKind:
    """The kind that the test wants."""
    return ProcessKind(KIND.read_text())


if __name__ == "__main__":
    setattr(attribution, "kind_of", given_kind)  # noqa: B010 - a type checker sees that it is another module's.
    sys.exit(daemon.main(sys.argv[4:]))
