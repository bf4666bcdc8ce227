"""The examples for continuous integration: their very commands, in a root file system of Debian, without the daemon."""

from __future__ import annotations

import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.system.bed import PATH
from tests.system.packaged import ROOT, built_package
from tests.system.roots import pristine_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ROOT / "packaging" / "examples" / "ci"
LONGEST = 300.0
"""Seconds; the commands of a job take 5 on an idle machine."""

CONTAINER = """
set -e
mount -t tmpfs none "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay none -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
: >etc/apt/sources.list
rm -rf etc/apt/sources.list.d/*
mount -t proc none proc
mount -t sysfs -o ro none sys
mount --rbind /dev dev
mount --bind "$3" srv
[ "$4" = privileged ] || { mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys; }
exec setpriv --bounding-set "$5" chroot . env -i PATH="$6" HOME=/root sh -ec 'cd /srv && . ./commands'
"""
"""A container: ROOT FOLDER PROJECT KIND CAPABILITIES PATH. apt has no sources, so it needs no network."""

ALL = "+all"
WITHOUT_PRIVILEGES = (
    "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,"
    "+mknod,+audit_write,+setfcap"
)
"""The capabilities that Docker leaves to a container."""

HOST = """\
interfaces:
  - {name: lo, kind: loopback, addresses: [127.0.0.1/8, "::1/128"], mtu: 65536}
  - {name: eth0, addresses: [192.0.2.2/24], mtu: 1500}
routes:
  - {to: 0.0.0.0/0, via: 192.0.2.1, dev: eth0}
  - {to: 192.0.2.0/24, dev: eth0, scope: 253, src: 192.0.2.2}
"""
MORE_TESTS = "tests:\n  - {expect: accept, in: eth0, proto: tcp, dport: 22}\n"
WRONG_TEST = "tests:\n  - {expect: accept, in: eth0, proto: tcp, dport: 23}\n"


def _github(job: str) -> Iterator[str]:
    """The commands of a job: each step is a shell of its own, in the same directory."""
    document = yaml.safe_load((EXAMPLES / "github.yml").read_text(encoding="utf-8"))
    for step in document["jobs"][job]["steps"]:
        if "run" in step:
            yield f"(\n{step['run']}\n)"


def _gitlab(job: str) -> Iterator[str]:
    """The commands of a job, which are one shell script."""
    document = yaml.safe_load((EXAMPLES / "gitlab.yml").read_text(encoding="utf-8"))
    yield from document["default"]["before_script"]
    yield from document[job]["script"]


KINDS = {"github": _github, "gitlab": _gitlab}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of rules, as the examples describe it."""
    folder = tmp_path / "project"
    for name in ("hosts", "ci"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(ROOT / "etc" / "fwguard.d", folder / "rules")
    shutil.copyfile(built_package(), folder / "ci" / built_package().name)
    (folder / "rules" / "ssh.tests.yaml").write_text(MORE_TESTS)
    (folder / "hosts" / "web1.yaml").write_text(HOST)
    return folder


def _run(project: Path, kind: str, job: str) -> subprocess.CompletedProcess[str]:
    """Run all commands of a job, as a runner does; the output is that of all of them."""
    (project / "commands").write_text("\n".join(KINDS[kind](job)) + "\n")
    folder = project.parent / f"container-{kind}-{job}"
    folder.mkdir(exist_ok=True)
    privileges = {"check": ("plain", WITHOUT_PRIVILEGES), "test": ("privileged", ALL)}[job]
    argv = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh"]
    return subprocess.run(
        [*argv, str(pristine_root()), str(folder), str(project), *privileges, PATH],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip


def _suite(project: Path) -> dict[str, str]:
    """The counts of the JUnit report of the one host."""
    (suite,) = ET.parse(project / "reports" / "web1.xml").getroot().iter("testsuite")
    return suite.attrib


def test_the_jobs_check_and_test_a_repository(project: Path) -> None:
    """Good rules pass: a container without privileges checks them and writes SARIF; another one loads them, sends the
    packets of the tests for each host, and writes JUnit. Each job runs once in the tests of this file."""
    checked = _run(project, "gitlab", "check")
    assert checked.returncode == 0, checked.stdout
    sarif: dict[str, Any] = json.loads((project / "check.sarif").read_text())
    assert (sarif["version"], sarif["runs"][0]["results"]) == ("2.1.0", [])
    tested = _run(project, "github", "test")
    assert tested.returncode == 0, tested.stdout
    assert "passed  ssh.tests.yaml:2  accepted by 10-ssh.rules:2" in tested.stdout
    assert (_suite(project)["tests"], _suite(project)["failures"]) == ("4", "0")


def test_the_jobs_fail_for_wrong_rules_and_failed_tests(project: Path) -> None:
    """A mistake in a rule fails the check with an annotation of its line, and a failed test the other job; the report
    of the tests is there all the same."""
    (project / "rules" / "ssh.tests.yaml").write_text(WRONG_TEST)
    tested = _run(project, "gitlab", "test")
    assert tested.returncode == 1, tested.stdout
    assert _suite(project)["failures"] == "1"
    (project / "rules" / "50-mine.rules").write_text("-A INPTU -j ACCEPT\n")
    checked = _run(project, "github", "check")
    assert checked.returncode == 1, checked.stdout
    assert "::error file=rules/50-mine.rules,line=1" in checked.stdout
