"""Write the expected files of all golden directories, the differences of changes, the reports, and the
completions, again.

Run ``.venv/bin/python -m tests.golden.update``.
"""

from __future__ import annotations

from tests.golden.completions import completion_files
from tests.golden.reports import report_files
from tests.golden.test_changes import write_differences
from tests.golden.test_golden import DIRECTORIES, expected_files
from tests.golden.test_shorter import write_shorter


def main() -> None:
    """Write the files that are expected, and delete those that must be absent."""
    for directory in DIRECTORIES:
        for name, text in expected_files(directory).items():
            path = directory / name
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(text, encoding="utf-8")
    for path, text in {**completion_files(), **report_files()}.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    write_differences()
    write_shorter()


if __name__ == "__main__":
    main()
