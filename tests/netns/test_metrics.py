"""Metrics of a real daemon, as a real Prometheus reads them from the real server."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "packaging" / "examples" / "prometheus"
RULES = (
    '-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 23 -j LOG --log-prefix "iptables denied: "\n'
)
SERVED = "http://127.0.0.1:9786/metrics"
PROMETHEUS = "http://127.0.0.1:9090/api/v1"
SCRAPES = """\
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: fwguardd
    static_configs: [{targets: ["127.0.0.1:9786"]}]
"""

pytestmark = [pytest.mark.parametrize("backend", ["nft"]), pytest.mark.tools]


@contextmanager
def _running(argv: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(LONGEST)


def _get(url: str) -> str:
    """What is served there, "" while nothing is."""
    try:
        with urllib.request.urlopen(url, timeout=LONGEST) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def _query(expression: str) -> list[dict[str, Any]]:
    """The result of a query; an error of Prometheus is none."""
    answer = _get(f"{PROMETHEUS}/query?{urllib.parse.urlencode({'query': expression})}")
    if not answer:
        return []
    return list(json.loads(answer)["data"]["result"])


def _queries() -> list[str]:
    """The queries of the dashboard, with values for the variables of Grafana."""
    dashboard = json.loads((FILES / "fwguardd-dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = {"$instance": ".*", "$__rate_interval": "1m", "$__range": "1h"}
    for name, value in variables.items():
        found = [query.replace(name, value) for query in found]
    return found


def _query_of_the_manual() -> str:
    """The query for the chains of denials, in fwguard-monitoring(7)."""
    page = (ROOT / "packaging" / "man" / "fwguard-monitoring.7").read_text()
    return page.partition("sum by")[1] + page.partition("sum by")[2].partition(".Ed")[0]


def _error_of(expression: str) -> str:
    """What Prometheus says is wrong with a query."""
    answer = json.loads(
        _get(f"{PROMETHEUS}/query?{urllib.parse.urlencode({'query': expression})}") or '{"error": "no"}'
    )
    return str(answer.get("error", ""))


def _alerts() -> set[str]:
    """What Prometheus says of the alerts: "ok" once it has evaluated one."""
    (group,) = json.loads(_get(f"{PROMETHEUS}/rules"))["data"]["groups"]
    return {rule["health"] for rule in group["rules"]}


def _check_names(text: str) -> None:
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", ""), text


WITHOUT_DATA = ("fwguard_scans_total", "fwguard_suppressed_lines_total", "fwguard_logged_packets_total", "fwguard_set_")
"""Metrics that this host has no value of: nothing is logged here, and there are no sets."""


def test_prometheus_reads_what_has_happened(start_daemon: Start, tmp_path: Path) -> None:
    """Drift with its program, a refusal with its code, and the states arrive in Prometheus, which accepts every query
    of the dashboard and every alert. The file says the same, and ends with the daemon; fwguard_up is 0 then."""
    file = tmp_path / "fwguard.prom"
    settings = f"runtime_dir: {tmp_path}/run\nmetrics:\n  textfile: {file}\n"
    daemon = start_daemon({"10.rules": RULES}, settings)
    daemon.event("rules.applied")
    subprocess.run(["iptables-nft", "-w", "5", "-A", "INPUT", "-p", "udp", "-j", "DROP"], check=True, timeout=LONGEST)
    daemon.event("drift.repaired")
    daemon.drop("20.rules", "-A INPUT -p tcp --dport no-such-port -j ACCEPT\n")
    daemon.event("rules.rejected")
    daemon.end_pass()
    scrapes = tmp_path / "prometheus.yml"
    scrapes.write_text(SCRAPES % (FILES / "fwguardd.rules.yml"))
    prometheus = ["prometheus", f"--config.file={scrapes}", f"--storage.tsdb.path={tmp_path}/tsdb"]
    serve = [sys.executable, "-m", "fwguardd.metrics", "--config", str(daemon.config)]
    with (
        _running(serve, tmp_path / "server.log"),
        _running([*prometheus, "--web.listen-address=127.0.0.1:9090"], tmp_path / "prometheus.log"),
    ):
        wait_until(lambda: "fwguard_up 1.0" in _get(SERVED), "the server", pause=0.1)
        _check_names(_get(SERVED))
        wait_until(lambda: len(_query("count_over_time(fwguard_up[1m]) >= 2")) == 1, "two scrapes", pause=0.1)
        assert _query('fwguard_drift_total{program!="unknown"} == 1')
        assert _query("fwguard_repairs_total == 1")
        assert _query("fwguard_refusals_total == 1")
        assert _query('fwguard_state{state="in-force"} == 1')
        assert _query('fwguard_files{state="refused"} == 1')
        assert _query('fwguard_log_rule_info{rule=~".*10.rules:3",chain="INPUT",table="filter",family="ipv6"} == 1')
        assert not _error_of(_query_of_the_manual())
        for query in _queries():
            assert not _error_of(query), query
            empty = any(name in query for name in WITHOUT_DATA)
            assert bool(_query(query)) is not empty, query
        wait_until(lambda: _alerts() == {"ok"}, "the alerts", pause=0.1)
        wait_until(file.exists, "the file")
        _check_names(file.read_text())
        assert daemon.stop() == 0
        wait_until(lambda: "fwguard_up 0.0" in _get(SERVED), "the end of the daemon", pause=0.1)
        wait_until(lambda: not file.exists(), "the end of the file")
    assert "fwguardd is not running" in (tmp_path / "server.log").read_text()
