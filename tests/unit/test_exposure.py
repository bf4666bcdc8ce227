"""Who can reach which socket, what a change turns, and a trial, through a simulated bed."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.exposure_lines import exposure_lines, port_lines
from fwguardd.ctl.impact_lines import impact_lines
from fwguardd.ctl.reach_diagnosis import check_ssh, notes_about
from fwguardd.packets.clients import ANYWHERE, Client, clients_of
from fwguardd.packets.endpoints import Connection, ListeningSocket, Program
from fwguardd.packets.exposure import (
    Attempt,
    ExposedSocket,
    Reach,
    Result,
    attempts_on,
    exposed,
    open_without_listener,
    packet_from,
)
from fwguardd.packets.host_routes import HostRoutes, NetworkRoute, OwnAddress
from fwguardd.packets.impact import Effect, Impact, connection_probes, denial_probes, impact_of, socket_probes
from fwguardd.packets.model import ConnectionState
from fwguardd.packets.named_ports import named_ports
from fwguardd.packets.port_ranges import merged_ranges
from fwguardd.packets.trial import Trial
from tests.unit.simulated_bed import SimulatedBed
from tests.unit.test_remedy import rulesets

ROUTES = HostRoutes(
    (OwnAddress("lo", ip_interface("127.0.0.1/8")), OwnAddress("eth0", ip_interface("192.0.2.1/24"))),
    (
        NetworkRoute(ip_network("127.0.0.0/8"), "lo"),
        NetworkRoute(ip_network("192.0.2.1/32"), "lo"),
        NetworkRoute(ip_network("192.0.2.0/24"), "eth0"),
        NetworkRoute(ip_network("0.0.0.0/0"), "eth0"),
    ),
)
RULES = """\
-P INPUT DROP
-P OUTPUT ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
-A INPUT -s 10.1.0.0/16 -p tcp --dport 5432 -j ACCEPT
-A INPUT -p tcp --dport 8080 -j ACCEPT
-A INPUT -j LOG --log-prefix "iptables denied: "
"""
SSHD = ListeningSocket("tcp", ip_address("0.0.0.0"), 22, program=Program("sshd", 7, "root", "ssh.service"))
SOCKETS = (
    SSHD,
    ListeningSocket("tcp", ip_address("0.0.0.0"), 5432, program=Program("postgres", 8, "postgres", "")),
    ListeningSocket("tcp", ip_address("0.0.0.0"), 9000, program=Program("java", 9, "app", "app.service")),
    ListeningSocket("udp", ip_address("127.0.0.53"), 53, program=Program("resolved", 10, "", "")),
)
LIVE = Connection(
    "tcp", ip_address("203.0.113.9"), ip_address("192.0.2.1"), 40000, 22,
    ip_address("192.0.2.1"), ip_address("203.0.113.9"), 22, 40000, answered=True,
)  # fmt: skip


def results(attempts: list[Attempt], text: str = RULES) -> list[Result]:
    """What becomes of packets by these rules."""
    journeys = SimulatedBed(rulesets(text)).send([attempt.packet for attempt in attempts])
    return [Result(attempt, journey) for attempt, journey in zip(attempts, journeys, strict=True)]


def test_each_socket_is_shown_with_those_who_reach_it() -> None:
    """A network that a rule names is a client of its own. What is bound to loopback is for this host whatever the rules
    are. A rule for a port on which no program listens is named."""
    loaded = rulesets(RULES)
    clients, notes = clients_of(ROUTES, loaded)
    assert notes == ()
    assert [place.name for place in clients if place.source.version == 4] == [
        "this host",
        "eth0 (192.0.2.0/24)",
        "10.1.0.0/16",
        ANYWHERE,
    ]
    sockets = exposed(results(list(attempts_on(SOCKETS, clients, ROUTES))), loaded)
    unheard = [
        Attempt(place, packet_from(place, "tcp", ip_address("192.0.2.1"), port))
        for port in named_ports(loaded, "tcp").single()
        for place in clients
        if port == 8080 and place.name == ANYWHERE
    ]
    opened = open_without_listener(results(unheard), {("tcp", 22)}, loaded)
    lines = list(exposure_lines(sockets, opened, AnswerPainter(colours=False)))
    assert lines == [
        "SOCKET             PROGRAM (USER, UNIT)      REACHABLE FROM",
        "*:22/tcp           sshd (root, ssh.service)  anywhere",
        "                                             /etc/fwguard.d/10.rules:5",
        "*:5432/tcp         postgres (postgres)       10.1.0.0/16",
        "                                             /etc/fwguard.d/10.rules:6",
        "*:9000/tcp         java (app, app.service)   nobody but this host",
        "                                             /etc/fwguard.d/10.rules:1",
        "127.0.0.53:53/udp  resolved                  this host (bound to loopback)",
        "/etc/fwguard.d/10.rules:7: opens 8080/tcp for anywhere, where no program listens",
        "4 sockets: 1 reachable from anywhere, 1 closed; 1 rule without a program",
    ]


def test_all_ports_are_ranges_that_the_rules_treat_alike() -> None:
    """A port that a rule names begins a new range; neighbours that are reached alike are one."""
    loaded = rulesets(RULES)
    (place,) = [place for place in clients_of(ROUTES, loaded)[0] if place.name == ANYWHERE]
    ranges = list(named_ports(loaded, "tcp").alike())
    assert ranges[0] == (1, 21)
    assert ranges[-1] == (8081, 65535)
    attempts = [Attempt(place, packet_from(place, "tcp", ip_address("192.0.2.1"), first)) for first, _ in ranges]
    merged = list(merged_ranges("tcp", ranges, results(attempts)))
    assert [(str(one), str(one.reach)) for one in merged] == [
        ("1-21/tcp", "nobody"),
        ("22/tcp", "anywhere"),
        ("23-8079/tcp", "nobody"),
        ("8080/tcp", "anywhere"),
        ("8081-65535/tcp", "nobody"),
    ]
    assert list(port_lines(merged, AnswerPainter(colours=False)))[2] == "1-21/tcp        nobody"


def impact(before: str, after: str) -> Impact:
    """What a change does to one connection, the sockets, and one denial."""
    loaded = rulesets(after)
    clients, _ = clients_of(ROUTES, loaded)
    denied = {"src": "203.0.113.9", "dst": "192.0.2.1", "proto": "tcp", "dpt": 80, "in": "eth0", "count": 3}
    probes = connection_probes([LIVE, LIVE], ROUTES)
    probes += socket_probes(list(attempts_on(SOCKETS, clients, ROUTES))) + denial_probes([denied, denied, {"src": "x"}])
    packets = [probe.packet for probe in probes.probes]
    return impact_of(probes, SimulatedBed(rulesets(before)).send(packets), SimulatedBed(loaded).send(packets))


def test_an_equal_ruleset_has_no_impact() -> None:
    """Nothing turns, and the sentence says how much was tried."""
    (line,) = impact_lines(impact(RULES, RULES), rulesets(RULES), AnswerPainter(colours=False))
    assert line.startswith("Impact: Nothing would be cut, closed, opened or let in: ")


def test_a_change_is_shown_by_what_it_cuts_closes_opens_and_lets_in() -> None:
    """A live connection that can go on but not begin again is not called cut; each line names the rule that decides."""
    after = RULES.replace("--dport 22 ", "--dport 80 ")
    found = impact(RULES, after)
    assert {effect: len(found.of(effect)) for effect in Effect if found.of(effect)} == {
        Effect.NOT_AGAIN: 1,
        Effect.CLOSED: 1,
        Effect.LET_IN: 1,
    }
    lines = list(impact_lines(found, rulesets(after), AnswerPainter(colours=False)))
    assert lines[0].startswith("not again  tcp 203.0.113.9:40000 → 192.0.2.1:22: the policy of INPUT")
    assert any("tcp 203.0.113.9 → 192.0.2.1:80, denied 6 times" in line for line in lines)
    cut = impact(RULES, after.replace("ESTABLISHED,", ""))
    assert [turned.probe.packet.state for turned in cut.of(Effect.CUT)] == [ConnectionState.ESTABLISHED]
    assert cut.of(Effect.NOT_AGAIN) == ()


def test_what_was_not_sent_is_left_out_and_said_so() -> None:
    """Where the time did not suffice, the rest is counted."""
    probes = connection_probes([LIVE], ROUTES)
    assert impact_of(probes, [], []).left_out == ("3 more packets left out",)


def test_a_trial_counts_each_connection_and_reports_each_kind_once() -> None:
    """One that the candidate would have dropped is reported with its rule when it comes first."""
    candidate = rulesets(RULES.replace("--dport 22 ", "--dport 23 "))
    trial = Trial(SimulatedBed(candidate), candidate, ROUTES)
    reported = [*trial.add([LIVE, LIVE]), *trial.add([LIVE])]
    assert [str(one) for one in reported] == [
        "tcp 203.0.113.9:40000 → 192.0.2.1:22: dropped by the policy of INPUT (/etc/fwguard.d/10.rules:1)"
    ]
    assert trial.sentence() == "Of 3 new connections 3 would have been dropped."
    assert trial.document()["dropped"][0]["times"] == 3


def test_a_client_of_two_families_is_named_with_the_one_that_is_meant() -> None:
    """Rules for IPv4 that were forgotten for IPv6: anywhere is not everywhere."""
    reach = Reach({"this host": {4, 6}, "eth0 (192.0.2.0/24)": {4}, ANYWHERE: {4}}, {ANYWHERE: {6}})
    assert str(reach) == "eth0 (192.0.2.0/24), anywhere over IPv4"
    assert reach.document()["not_reachable_from"] == ["anywhere over IPv6"]
    assert str(Reach({ANYWHERE: {4, 6}}, {"10.0.0.0/8": {4}})) == "anywhere but 10.0.0.0/8"
    assert str(Reach({}, {ANYWHERE: {4}}, {"this host": "a match"})) == "undecided"


def test_a_socket_that_is_closed_for_one_family_only_is_not_called_closed() -> None:
    """A client of both families is named with the one for which the socket turns; without, where it does for both."""
    socket_of_both = ListeningSocket("tcp", ip_address("::"), 80, both_families=True)
    loaded, client4 = rulesets(RULES), Client(ANYWHERE, "eth0", ip_address("45.130.86.29"))
    client6 = Client(ANYWHERE, "eth0", ip_address("2a0c:e640:42::29"))
    attempts = [
        Attempt(client, packet_from(client, "tcp", ip_address(own), 80), socket_of_both)
        for client, own in ((client4, "192.0.2.1"), (client6, "2001:db8::1"))
    ]
    probes = socket_probes(attempts)
    packets = [probe.packet for probe in probes.probes]
    closed = SimulatedBed(loaded).send(packets)
    opened = SimulatedBed(rulesets(RULES.replace("8080", "80"))).send(packets)
    assert [turned.clients for turned in impact_of(probes, opened, closed).of(Effect.CLOSED)] == [("anywhere",)]
    only4 = impact_of(probes, opened, [closed[0], opened[1]])
    assert [turned.clients for turned in only4.of(Effect.CLOSED)] == [("anywhere over IPv4",)]


def test_doctor_says_whether_ssh_is_reached() -> None:
    """An sshd that only this host reaches is a problem; one that others reach is a note, as is a closed socket."""
    closed = Reach(accepted={"this host": {4}}, refused={ANYWHERE: {4}})
    reached = Reach(accepted={ANYWHERE: {4}})
    java = ExposedSocket(SOCKETS[2], closed, None, None)
    assert [finding.code for finding in check_ssh([ExposedSocket(SSHD, closed, None, None), java])] == ["ssh-closed"]
    assert list(check_ssh([ExposedSocket(SSHD, reached, None, None), java])) == []
    assert list(notes_about([ExposedSocket(SSHD, reached, None, None), java])) == [
        "sshd at *:22/tcp is reached by other hosts",
        "1 socket that only this host reaches by the rules in force: *:9000/tcp (java)",
    ]
    assert list(notes_about([ExposedSocket(SOCKETS[3], Reach(), None, None)])) == []


def test_a_socket_that_no_network_leads_to_is_not_called_closed() -> None:
    """On a host without addresses of IPv6 but those of the link, sshd at :: is neither reached nor closed by rules."""
    untried = ExposedSocket(SSHD, Reach(accepted={"this host": {6}}), None, None)
    assert not untried.closed
    assert list(check_ssh([untried])) == []
    assert list(notes_about([untried])) == []
