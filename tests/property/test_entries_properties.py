"""Properties of entries: what is written and taken out leaves what was there, twice is once, ended rules are out."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ctl import service_table
from fwguardd.ctl.service_table import known_services
from fwguardd.ctl.wanted_entry import as_written, to_remove
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.entries import (
    Entry,
    entries_in,
    entry_in,
    merged,
    with_entry,
    without_ended_entries,
    without_entry,
)
from fwguardd.ruleset.expiry import without_ended
from fwguardd.ruleset.forwarding import Server, forward_rules, read_server
from fwguardd.ruleset.model import FAMILIES
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.peers import peers_of
from fwguardd.ruleset.services import Peers, Ports, RuleForm, ServiceError, rules_for

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
SERVICES = known_services()

_networks = st.one_of(st.ip_addresses(), st.ip_addresses()).map(ip_network)
_peers = st.builds(
    peers_of,
    st.lists(_networks, max_size=60),
    st.lists(st.sampled_from(["office", "geo-de"]), max_size=2, unique=True),
    outward=st.booleans(),
)
_forms = st.sampled_from([
    RuleForm("-A INPUT", "-m conntrack --ctstate NEW", "ACCEPT", "PREROUTING"),
    RuleForm("-I OUTPUT", "", "DROP"),
    RuleForm("-A OUTPUT", "-m conntrack --ctstate NEW", "ACCEPT", "OUTPUT"),
])  # fmt: skip
_rules = st.builds(rules_for, st.sampled_from(list(SERVICES.values())), _forms, _peers).filter(bool)
_commands = st.builds(
    "{} {}".format, st.sampled_from(["allow", "deny", "block"]), st.sampled_from([*SERVICES, "x --out"])
)
_ends = st.none() | st.integers(-9, 9).map(lambda seconds: NOW + seconds)
_entries = st.builds(Entry, _commands, _rules.map(tuple), st.sampled_from(["", "office, 2nd floor"]), _ends)
_lines = st.sampled_from(
    ["", "# mine", "-A INPUT -i lo -j ACCEPT", "*filter", "COMMIT", "# fwguardctl reload", "# fwguard: allow no-target"]
)
_texts = st.none() | st.lists(_lines, min_size=1).map(lambda lines: "\n".join((*lines, "-P INPUT DROP", "")))


@given(_texts, st.lists(_entries, max_size=6, unique_by=lambda entry: entry.command), st.randoms())
def test_what_is_written_and_taken_out_leaves_what_was_there(
    text: str | None, entries: list[Entry], random: object
) -> None:
    """Entries are written in some order and taken out in another one: every byte is as before, and a file that was made
    for them is gone."""
    written = text
    for entry in entries:
        written = with_entry(written, entry)
        assert entry_in(written, entry.command) is not None
        assert with_entry(written, entry) == written
    if entries:
        assert written is not None
        assert [entry.command for entry in entries_in(written)] == [entry.command for entry in entries]
    random.shuffle(entries)  # type: ignore[attr-defined]
    for entry in entries:
        assert written is not None
        written = without_entry(written, entry.command)
    assert written == text


@given(_entries, st.lists(_entries))
def test_the_same_entry_again_changes_nothing(entry: Entry, others: list[Entry]) -> None:
    """An entry that is read back and wanted again is the same, but for one that has ended."""
    text = with_entry(None, entry)
    for other in others:
        if other.command != entry.command:
            text = with_entry(text, other)
    known = entry_in(text, entry.command)
    assert known is not None
    assert with_entry(text, merged(known, entry, NOW)) == text


@given(_texts, st.lists(_entries, unique_by=lambda entry: entry.command))
def test_what_has_ended_is_not_read(text: str | None, entries: list[Entry]) -> None:
    """The rules of entries that have ended are comments, lines keep their numbers, and the next end is known."""
    written = text or ""
    for entry in entries:
        written = with_entry(written, entry)
    left = without_ended("f", written.encode(), NOW)
    before, after = written.split("\n"), left.data.decode().split("\n")
    assert len(before) == len(after)
    ended = [rule for entry in entries if entry.has_ended(NOW) for rule in entry.rules]
    assert [line for line, read in zip(before, after, strict=True) if line != read] == ended
    assert all(read in (line, f"# ended: {line}") for line, read in zip(before, after, strict=True))
    ends = [entry.until for entry in entries if entry.until is not None and entry.until > NOW]
    assert (left.until, left.any_ended, left.findings) == (min(ends, default=None), bool(ended), ())
    if text is not None:
        kept = without_ended_entries(written, NOW)
        assert kept is not None
        assert entries_in(kept) == [known for known in entries_in(kept) if not known.has_ended(NOW)]


@given(_rules)
def test_the_rules_of_services_can_be_read(rules: list[str]) -> None:
    """What is written for a service and addresses is read without an error, and names each family that it is for."""
    reading = read_rules("60-allow.rules", "\n".join((*rules, "")).encode(), frozenset(FAMILIES))
    composition = compose([reading])
    assert composition.findings == ()
    assert len(reading.statements) == len(rules)


@given(st.ip_addresses(), st.none() | st.integers(1, 65535), _peers)
def test_the_rules_of_a_forwarded_port_can_be_read(address: object, port: int | None, peers: list[Peers]) -> None:
    """They are for the family of the server, and a server that is printed is the one that is read."""
    server = read_server(str(Server(str(address), port)))
    assert server == Server(str(address), port)
    rules = forward_rules(Ports("tcp", 8443, 8443), server, peers, "-A")
    reading = read_rules("60-forward.rules", "\n".join((*rules, "")).encode(), frozenset(FAMILIES))
    assert compose([reading]).findings == ()
    assert len(reading.statements) == len(rules)


@pytest.mark.parametrize("before", ["", "[0:0] ", "iptables ", "/sbin/ip6tables ", "\t", '"-4" '])
def test_every_form_of_a_rule_ends(before: str) -> None:
    """A rule that was meant to end does, however its line begins; tables and chains stay."""
    text = f"*filter\n# fwguard: until 2020-01-01T00:00:00Z\n:A - [0:0]\n{before}-A INPUT -j ACCEPT\nCOMMIT\n"
    lines = without_ended("f", text.encode(), NOW).data.decode().splitlines()
    assert lines == [*text.splitlines()[:3], f"# ended: {before}-A INPUT -j ACCEPT", "COMMIT"]


@pytest.mark.parametrize("text", ["[" * 5000, "a: {ports: [2026-99-99]}", "a: {ports: [" + "9" * 5000 + "]}", "a: \0"])
def test_a_table_of_services_that_cannot_be_read_is_an_error(tmp_path: Path, text: str) -> None:
    """Whatever a file of services holds, the message names the file."""
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ServiceError, match=str(tmp_path / "x.yaml")):
        known_services(tmp_path)


ALIASES = "postgresql 5432/tcp postgres\nsmtp 25/tcp mail\nhttp 80/tcp www\ndomain 53/tcp\ndomain 53/udp\n"


def test_what_allow_accepts_remove_takes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that was written under any name of a service, or its port, is found under each of its other names; and
    not under the name of a service that listens on something else."""
    (tmp_path / "services").write_text(ALIASES)
    monkeypatch.setattr(service_table, "ETC_SERVICES", tmp_path / "services")
    groups = {frozenset(service_table.names_of(name)) for name in [*SERVICES, *ALIASES.split(), "8080/TCP"]}
    assert {"postgresql", "postgres", "5432/tcp"} in groups
    assert {"smtp", "mail", "25/tcp"} in groups
    for group in groups:
        for name in group:
            wanted = to_remove("allow", name, ["203.0.113.9"], outward=True)
            text = with_entry(None, Entry(wanted.command, ("-A OUTPUT -j ACCEPT",)))
            found = {as_written(to_remove("allow", other, ["203.0.113.9"], outward=True), text) for other in group}
            assert found == {wanted}
