"""The verb render: the composed ruleset as input for iptables-restore."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fwguardd.ctl.offline_verbs import ANSWER_IS_NO, DONE, OfflineInput, input_of, snapshot_of
from fwguardd.ctl.terminal import Painter
from fwguardd.ctl.verb_options import add_rules, describe
from fwguardd.enforce.validate import compose_files
from fwguardd.ruleset.model import FAMILIES, Family, Finding
from fwguardd.ruleset.save_format import render

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

_FAMILIES = {None: FAMILIES, "4": (Family.IPV4,), "6": (Family.IPV6,)}


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    description = "Print the ruleset that the rule files make, as input for iptables-restore. Nothing is rehearsed."
    examples = (
        ("fwguardctl render --family 4", "for iptables-restore"),
        ("fwguardctl render --rules-dir ./rules", "both families of a draft"),
    )
    describe(parser, description, examples)
    add_rules(parser)
    parser.add_argument("--family", choices=["4", "6"], help="only this family")


def run(options: argparse.Namespace) -> int:
    """Render what the command line names; the exit code. Raises SettingsError."""
    return render_rules(input_of(options), _FAMILIES[options.family])


def render_rules(source: OfflineInput, families: Sequence[Family]) -> int:
    """Print the composed ruleset as iptables-restore text, or the findings if a file has an error."""
    snapshot = snapshot_of(source.paths, source.rules_dir)
    composition = compose_files(snapshot.files, source.context, snapshot.findings, snapshot.sets)
    if composition.findings.errors:
        _print_each(composition.findings, as_documents=source.json)
        return ANSWER_IS_NO
    texts = {family.value: render(composition.candidate.rulesets[family]).text for family in families}
    if source.json:
        print(json.dumps(texts))
    else:
        _print_texts(texts)
    return DONE


def _print_texts(texts: Mapping[str, str]) -> None:
    for family, text in texts.items():
        if len(texts) > 1:
            print(f"# {family}")
        print(text, end="")


def _print_each(findings: Sequence[Finding], *, as_documents: bool) -> None:
    paint = Painter()
    for finding in findings:
        if as_documents:
            print(json.dumps(finding.document()))
        else:
            print(paint.finding(finding))
