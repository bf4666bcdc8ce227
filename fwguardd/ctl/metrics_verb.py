"""The verb metrics: what the daemon measures and counts, as Prometheus reads it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from fwguardd.control.client import ask
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.verb_options import add_config, add_json, add_socket, describe

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    description = (
        "Print the metrics of the daemon in the text format of Prometheus. fwguardd-metrics.service serves the same "
        "metrics over HTTP, and the setting metrics writes them to a file for the node exporter."
    )
    examples = (
        ("fwguardctl metrics", "all metrics"),
        ("fwguardctl metrics | promtool check metrics", "check their names"),
    )
    describe(parser, description, examples)
    add_json(parser)
    add_config(parser)
    add_socket(parser)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon and print its answer; the exit code. Raises ReportedError."""
    result = ask(socket_path_of(options), "metrics")
    if options.json:
        print(json.dumps(result))
        return 0
    # Imported here: --json works without the library.
    from fwguardd.metrics.exposition import text_of  # noqa: PLC0415

    sys.stdout.write(text_of(result["families"]).decode())
    return 0
