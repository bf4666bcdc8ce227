"""What the programs need to start is little: what is for rare cases is imported and compiled when it is used."""

from __future__ import annotations

import importlib
import os.path
import pkgutil
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import fwguardd
from fwguardd.left_out import imported_when_used, left_out
from fwguardd.patterns import _CompiledLater, pattern

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pattern_is_compiled_when_it_is_used() -> None:
    """A pattern has the methods and attributes of the expression, and its errors, from its first use on."""
    digits = pattern("([0-9]+)(x)?", re.IGNORECASE)
    for _ in range(2):
        found = digits.match("12X")
        assert found is not None and found[2] == "X"
        assert digits.search("nothing") is None and digits.groups == 2
    with pytest.raises(re.error):
        pattern("(").match("")
    with pytest.raises(AttributeError):
        _ = pattern("a").nonsense  # type: ignore[attr-defined]


def test_every_pattern_of_the_package_compiles() -> None:
    """A wrong expression would be noticed only by whoever uses it."""
    found = 0
    for module in pkgutil.walk_packages(fwguardd.__path__, "fwguardd."):
        if module.name.endswith(("__main__", "kernel.rehearsal_worker", "kernel.kmsg")) or ".metrics" in module.name:
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, _CompiledLater):
                assert value.groups >= 0
                found += 1
    assert found > 50


def test_a_module_that_is_left_out_can_be_imported_afterwards() -> None:
    """In the block it is as if the module were not installed, later it is there; one that was there before stays."""
    sys.modules.pop("this", None)
    with left_out("this", "re"):
        with pytest.raises(ImportError):
            importlib.import_module("this")
        assert importlib.import_module("re") is re
    assert "this" not in sys.modules and sys.modules["re"] is re


def test_a_module_is_imported_when_it_is_used() -> None:
    """Another module can import it, and it is there when something of it is used."""
    sys.modules.pop("xml.sax.saxutils", None)
    with imported_when_used("xml.sax.saxutils"):
        stand_in = importlib.import_module("xml.sax.saxutils")
    assert sys.modules["xml.sax.saxutils"] is stand_in
    assert stand_in.escape("<") == "&lt;"
    assert sys.modules["xml.sax.saxutils"] is not stand_in
    assert stand_in.escape is importlib.import_module("xml.sax.saxutils").escape
    with pytest.raises(AttributeError):
        _ = stand_in.nonsense


def test_a_module_that_is_there_stays() -> None:
    """Nothing stands in for it."""
    with imported_when_used("os.path"):
        assert sys.modules["os.path"] is os.path


def test_the_daemon_starts_without_what_it_rarely_needs() -> None:
    """The daemon imports no TLS, no terminal, no second logging library, no parser of YAML, no library that compresses,
    nothing that sends packets through rules and no modules of fwguardctl when it starts."""
    script = "import sys, fwguardd.daemon; print(*sys.modules, sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = {name for name in ran.stdout.split() if name.startswith(_RARE)}
    assert not found


_PREPARED = """
import gc, sys
from fwguardd.enforce.known_lines import KnownLines
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import Valid, Validator
from fwguardd.patterns import _CompiledLater
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.preserve import Preserve
from pathlib import Path

def there():
    compiled = [each for each in gc.get_objects() if isinstance(each, _CompiledLater) and each._compiled]
    return set(map(id, compiled)) | set(sys.modules)

def rehearse(candidate, /):
    return Canonical.rehearsed(candidate.rulesets)

known = KnownLines(rehearse, "nft")
validator = Validator(known.rehearse, LintContext(("iptables denied: ",), Preserve.from_patterns([])))
if sys.argv[2:]:
    validator.prepare()
snapshot = take_snapshot(Path(sys.argv[1]), draft=True)
before = there()
assert isinstance(validator.validate(snapshot), Valid)
print(len(there() - before))
"""


def test_a_validation_is_prepared_while_files_settle(tmp_path: Path) -> None:
    """Once prepared, the first validation of many rules imports and compiles next to nothing."""
    rules = "".join(f"-A INPUT -s 10.0.{n // 200}.{n % 200} -p tcp --dport {n + 1} -j ACCEPT\n" for n in range(400))
    (tmp_path / "a.rules").write_text(f"-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n{rules}")

    def made(*words: str) -> int:
        argv = [sys.executable, "-c", _PREPARED, str(tmp_path), *words]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    assert made("prepared") <= 3
    assert made() > 10


_RARE = (
    *("ssl", "_ssl", "structlog", "rich", "uuid", "decimal", "http", "email", "yaml", "fwguardd.ctl", "fwguardd.proof"),
    *("bz2", "lzma", "zlib", "shutil", "tempfile", "random", "difflib"),
    *("fwguardd.kernel.bed", "fwguardd.packets.host", "fwguardd.packets.impact", "fwguardd.packets.policy"),
)
