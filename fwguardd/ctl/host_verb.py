"""The verb host: the network of this host as a file, so that packets are sent for it on another machine."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import yaml

from fwguardd.ctl.verb_options import add_json, describe
from fwguardd.escaping import printable
from fwguardd.kernel.host_network import read_host

if TYPE_CHECKING:
    import argparse

_DONE, _FAILED = 0, 5
_HEAD = "# The network of a host, for the option --host of fwguardctl test and others.\n"


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the option."""
    description = (
        "Print the network of this host as YAML: interfaces, addresses, routes, routing rules and settings. With this "
        "file, test sends packets for this host on another machine."
    )
    examples = (
        ("fwguardctl host > host.yaml", "write the file"),
        ("fwguardctl test --host host.yaml", "use it, for example in CI"),
    )
    describe(parser, description, examples)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the network."""
    try:
        host = read_host()
    except OSError as error:
        print(f"fwguardctl: the network of this host cannot be read: {error.strerror}", file=sys.stderr)
        return _FAILED
    document = json.loads(json.dumps(host.document()))
    if options.json:
        print(json.dumps(document))
    else:
        print(_HEAD + yaml.safe_dump(document, sort_keys=False), end="")
    for one in host.left_out:
        print(f"fwguardctl: left out: {printable(one)}", file=sys.stderr)
    return _DONE
