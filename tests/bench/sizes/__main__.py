"""Measure what fwguardd takes for rulesets of several sizes, beside other programs, and print a table. Needs root."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.bench.sizes.peers import PEERS
from tests.bench.sizes.plot import plot
from tests.bench.sizes.run import PANELS, amounts, measure
from tests.bench.sizes.table import markdown, table


def main() -> int:
    """Measure, print, and write the files that were asked for."""
    parser = argparse.ArgumentParser(prog="packaging/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and no ruleset beyond 10,000 rules")
    parser.add_argument("--no-peers", action="store_true", help="fwguardd and the bare restore only")
    parser.add_argument("--backend", choices=("nft", "legacy"), default="nft", help="the iptables of fwguardd")
    parser.add_argument("--sizes", metavar="N,N…", help="only these numbers of rules")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the summary as a table of a README")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="write a picture")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("run it as root: it makes network namespaces")
    amount = amounts(quick=options.quick, peers=() if options.no_peers else PEERS)
    rounds = amount.rounds
    if options.sizes:
        rounds = {int(size): amount.rounds.get(int(size), 3) for size in options.sizes.split(",")}
    begun = time.monotonic()

    def report(text: str) -> None:
        print(f"{time.monotonic() - begun:4.0f} s: {text}", file=sys.stderr, flush=True)

    figures = measure(replace(amount, rounds=rounds, backend=options.backend), report)
    print(table(figures))
    written = ((options.json, figures.document), (options.markdown, lambda: markdown(figures)))
    for path, text in (*written, (options.plot, lambda: plot(figures, PANELS))):
        if path is not None:
            path.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
