"""What ``check --static`` calls an error is one for iptables, and reads the same."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import Invalid, Valid, Validator, compose_files
from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.preserve import STRICT

if TYPE_CHECKING:
    from pathlib import Path

WRONG = """\
-A INPUT -p tcp --dport 70000 -j ACCEPT
-A INPUT -p tcp --sport 80:65536 -j ACCEPT
-A INPUT -s 192.0.2.1,192.0.2.256 -j ACCEPT
-A INPUT -d 192.0.2.0/33 -j ACCEPT
-A INPUT -s 2001:db8::/129 -j ACCEPT
-A INPUT -s 2001:db8:::1 -j ACCEPT
-A INPUT -m conntrack --ctstate NWE -j ACCEPT
-A INPUT -p tcp -m state --state NEW,FOO -j ACCEPT
-A INPUT -p tcp -m multiport --dprots 22,80 -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,80000 -j ACCEPT
-A INPUT -m limit --limits 5/min -j ACCEPT
-A INPUT -p tcp --icmp-type 8 -j ACCEPT
-A INPUT --dport 22 -j ACCEPT
-A INPUT -m comment --comment "--dport 70000" --coment x -j OWN
-A INPUT -j LOG --log-prefx x
-t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 99999
-N OWN
"""
RIGHT = """\
-A INPUT -p tcp --dpo 65535 -j ACCEPT
-A INPUT -p tcp --destination-p 0x50 -j ACCEPT
-A INPUT -p tcp --dport 0177 -j ACCEPT
-A INPUT -p tcp --dport http: -j ACCEPT
-A INPUT -p udp --sport 80:65536 -j ACCEPT
-A INPUT -s 192.168.1/24,010.1.1.1 -j ACCEPT
-A INPUT -s 192.0.2.0/255.255.255.0 ! -d 0300.0.2.1 -j ACCEPT
-A INPUT -m conntrack --ctorigsrcp 22 --ctstate new,est -j ACCEPT
-A INPUT -p tcp -m multiport --destination-ports 22,80:90 -j ACCEPT
-A INPUT -m comment --com "--dprots 70000 -s 192.0.2.256" -j ACCEPT
-A INPUT -j LOG --log-p "--dprot 70000: " -m limit --limit 5/min
-A INPUT -p sctp --dport 22 --chunk-types any INIT -j ACCEPT
-4 -t nat -A PREROUTING -p tcp -j DNAT --to-dest 192.0.2.1:80
"""


def test_static_errors_are_those_of_iptables(tmp_path: Path, backend: str) -> None:
    """Each error without a rehearsal has the line, the code and the words of one with it; no line that iptables takes
    has one, however short its options and odd its values are written."""
    context = LintContext((), STRICT)
    with closing(NamespacePool()) as pool:
        pool.refill()
        validator = Validator(Rehearsals(backend, pool).rehearse, context)
        (tmp_path / "a.rules").write_text(WRONG)
        snapshot = take_snapshot(tmp_path)
        static = compose_files(snapshot.files, context, look_for_errors=True).findings.errors
        rehearsed = validator.validate(snapshot)
        assert isinstance(rehearsed, Invalid)
        assert [each.place.line for each in static] == list(range(1, 17))
        assert [str(each) for each in static] == [str(each) for each in rehearsed.findings.errors]
        (tmp_path / "a.rules").write_text(RIGHT)
        snapshot = take_snapshot(tmp_path)
        assert compose_files(snapshot.files, context, look_for_errors=True).findings.errors == ()
        rehearsed = validator.validate(snapshot)
        assert isinstance(rehearsed, Valid), list(map(str, rehearsed.findings.errors))
