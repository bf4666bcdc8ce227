"""The protocol of the control socket: which requests are accepted, and why others are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fwguardd.control.protocol import (
    LARGEST_ANSWER,
    LARGEST_REQUEST,
    VERBS,
    VERSION,
    Answer,
    Code,
    Request,
    RequestFault,
    encode_answer,
    encode_request,
    parse_answer,
    parse_request,
)


def parsed(verb: object, args: object = None, version: object = VERSION, **more: object) -> Request | RequestFault:
    """What the server makes of a request."""
    return parse_request(json.dumps({"v": version, "verb": verb, "args": args, **more}).encode())


@pytest.mark.parametrize(
    ("verb", "args", "meant"),
    [
        ("status", {}, {}),
        ("status", None, {}),
        ("reload", {}, {}),
        ("reload", {"confirm_seconds": None}, {}),
        ("reload", {"confirm_seconds": 60}, {"confirm_seconds": 60.0}),
        ("reload", {"confirm_seconds": 1.5}, {"confirm_seconds": 1.5}),
        ("confirm", {}, {}),
        ("rollback", {}, {"revision": None}),
        ("rollback", {"revision": 41}, {"revision": 41}),
        ("history", {"limit": 10}, {"limit": 10}),
        ("show", {"revision": 1}, {"revision": 1}),
        ("open", {}, {"seconds": None}),
        ("open", {"seconds": 60}, {"seconds": 60.0}),
        ("hold", {}, {}),
        ("drift", {}, {}),
        ("pause", {"seconds": 86400}, {"seconds": 86400.0}),
        ("resume", {}, {}),
        ("reload", {"take_over": True, "force": True}, {"take_over": True, "force": True}),
        ("reload", {"ssh_connection": "a b"}, {"ssh_connection": "a b"}),
        ("others", {}, {}),
        ("adopt", {}, {"numbers": None, "remove": None}),
        ("adopt", {"numbers": [3, 1], "remove": False}, {"numbers": (3, 1), "remove": False}),
    ],
)
def test_every_verb_is_read_with_its_arguments(verb: str, args: object, meant: dict[str, Any]) -> None:
    """A verb comes with all of its arguments; those that were not given are None."""
    not_given = dict.fromkeys(argument.name for argument in VERBS[verb].arguments)
    assert parsed(verb, args) == Request(VERBS[verb], not_given | meant)


def test_args_may_be_left_out() -> None:
    """A verb without arguments needs no args."""
    assert parse_request(b'{"v": 1, "verb": "status"}') == Request(VERBS["status"], {})


def test_arguments_come_out_typed() -> None:
    """The function that performs a verb gets whole numbers and seconds, and None for what was not given."""
    request = parsed("pause", {"seconds": 900})
    assert isinstance(request, Request)
    assert request.seconds("seconds") == 900.0
    request = parsed("rollback")
    assert isinstance(request, Request)
    assert request.whole("revision") is None


@pytest.mark.parametrize(
    ("verb", "args", "why"),
    [
        ("status", {"verbose": True}, "status has no argument 'verbose'"),
        ("status", [], '"args" must be an object'),
        ("show", {}, "the argument revision of show is missing"),
        ("show", {"revision": None}, "the argument revision of show is missing"),
        ("show", {"revision": 0}, "must be from 1 to 9007199254740991"),
        ("show", {"revision": 1 << 53}, "must be from 1 to 9007199254740991"),
        ("show", {"revision": 1.0}, "must be a whole number"),
        ("show", {"revision": "1"}, "must be a whole number"),
        ("show", {"revision": True}, "must be a whole number"),
        ("pause", {}, "the argument seconds of pause is missing"),
        ("pause", {"seconds": 0.5}, "must be from 1 to 86400"),
        ("pause", {"seconds": 86401}, "must be from 1 to 86400"),
        ("pause", {"seconds": 10**300}, "must be from 1 to 86400"),
        ("pause", {"seconds": -(10**400)}, "must be from 1 to 86400"),
        ("pause", {"seconds": "15m"}, "must be a number of seconds"),
        ("pause", {"seconds": False}, "must be a number of seconds"),
        ("reload", {"confirm_seconds": []}, "must be a number of seconds"),
    ],
)
def test_wrong_arguments_are_bad_requests(verb: str, args: object, why: str) -> None:
    """An argument that is unknown, missing, mistyped or out of bounds refuses the whole request, and is named."""
    fault = parsed(verb, args)
    assert isinstance(fault, RequestFault)
    assert fault.code is Code.BAD_REQUEST
    assert why in fault.message


@pytest.mark.parametrize("verb", ["statuS", "", "__class__", "flush"])
def test_an_unknown_verb_is_answered_with_the_known_ones(verb: str) -> None:
    """An unknown verb has a code of its own, and the message lists the verbs."""
    fault = parsed(verb)
    assert isinstance(fault, RequestFault)
    assert fault.code is Code.UNKNOWN_VERB
    assert "status, reload, confirm" in fault.message


@pytest.mark.parametrize("verb", [None, 1, ["status"], {}])
def test_a_verb_is_a_name(verb: object) -> None:
    """A verb that is not a string is a bad request."""
    assert parsed(verb) == RequestFault(Code.BAD_REQUEST, '"verb" must be the name of a verb')


@pytest.mark.parametrize("version", [0, 2, -1, 10**30])
def test_another_version_is_refused(version: int) -> None:
    """Another version of the protocol is refused as such, before anything else in the request is read."""
    fault = parsed("no-such-verb", [], version, colour="red")
    assert isinstance(fault, RequestFault)
    assert fault.code is Code.UNSUPPORTED_VERSION


@pytest.mark.parametrize("version", [None, True, 1.0, "1"])
def test_a_version_is_a_whole_number(version: object) -> None:
    """A value that is not a version number is a bad request."""
    assert parsed("status", {}, version) == RequestFault(Code.BAD_REQUEST, '"v" must be the version of the protocol, 1')


def test_a_request_holds_nothing_else() -> None:
    """An unknown key beside the verb is a bad request: the sender expected it to have an effect."""
    assert parsed("status", dry_run=True) == RequestFault(
        Code.BAD_REQUEST, "a request has no 'dry_run', only v, verb and args"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"", b"status", b"\x00", b"\xff\xfe", b"[]", b"1", b"null", b"{", b'{"v": 1, "verb": "status"',
        b'{"v": 1, "v": 1, "verb": "status"}', b'{"v": 1, "verb": "pause", "args": {"seconds": NaN}}',
        b'{"v": 1, "verb": "pause", "args": {"seconds": Infinity}}', b"[" * 60000, b'{"a":' * 12000, b"9" * 60000,
        b'{"v": 1, "verb": "status"} {"v": 1, "verb": "open"}', b'\xef\xbb\xbf{"v": 1, "verb": "status"}',
    ],
    ids=range(17),
)  # fmt: skip
def test_other_bytes_are_a_bad_request(data: bytes) -> None:
    """Bytes that are not one JSON object of the right shape are refused with a short, printable sentence."""
    fault = parse_request(data)
    assert isinstance(fault, RequestFault)
    assert fault.code is Code.BAD_REQUEST
    assert fault.message.isprintable()
    assert len(fault.message) < 200


def test_a_number_beyond_all_floats_is_out_of_bounds() -> None:
    """A literal that becomes infinite when it is read is out of bounds like any other."""
    fault = parse_request(b'{"v": 1, "verb": "pause", "args": {"seconds": 1e999}}')
    assert fault == RequestFault(Code.BAD_REQUEST, "the argument seconds of pause must be from 1 to 86400")


def test_the_size_of_a_request_is_limited() -> None:
    """A request has at most as many bytes as the protocol permits, the newline included; a longer one is not parsed."""
    request = b'{"v": 1, "verb": "status"}'
    assert isinstance(parse_request(request.ljust(LARGEST_REQUEST - 1)), Request)
    assert parse_request(request.ljust(LARGEST_REQUEST)) == RequestFault(
        Code.BAD_REQUEST, f"a request has at most {LARGEST_REQUEST} bytes"
    )


def test_what_a_client_sent_is_quoted_short_and_escaped() -> None:
    """A message quotes the text of a client shortened, and with control characters escaped."""
    fault = parsed("\x1b[2J\udc80" + "x" * 5000)
    assert isinstance(fault, RequestFault)
    assert fault.message.startswith("unknown verb '\\x1b[2J\\udc80xxx")
    assert fault.message.isprintable()
    assert len(fault.message) < 300


@pytest.mark.parametrize(
    ("verb", "reads"),
    [
        ("status", True), ("history", True), ("show", True), ("drift", True), ("reload", False), ("confirm", False),
        ("rollback", False), ("open", False), ("pause", False), ("resume", False),
    ],
)  # fmt: skip
def test_the_table_says_which_verbs_only_read(verb: str, reads: bool) -> None:  # noqa: FBT001
    """Verbs that change the kernel or the daemon are not among those that only read."""
    assert VERBS[verb].reads is reads


def test_a_request_is_read_as_it_was_sent() -> None:
    """What the client encodes, the server reads."""
    line = encode_request("show", {"revision": 7})
    assert line.endswith(b"\n")
    assert parse_request(line[:-1]) == Request(VERBS["show"], {"revision": 7})


def test_an_answer_is_read_as_it_was_sent() -> None:
    """What the server encodes, the client reads: one line, whatever is in it, names that are not UTF-8 included."""
    answer = Answer({"texts": {"ipv4": "*filter\nCOMMIT\n"}, "path": "/etc/fwguard.d/\udcff.rules", "none": None})
    line = encode_answer(answer)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert parse_answer(line[:-1]) == answer


@pytest.mark.parametrize("code", list(Code))
def test_a_fault_is_read_as_it_was_sent(code: Code) -> None:
    """The client reads every code as the server sent it."""
    fault = RequestFault(code, "because of \x07 this")
    assert parse_answer(encode_answer(fault)[:-1]) == fault


def test_a_code_that_the_client_does_not_know_is_a_failure() -> None:
    """A newer daemon may have more codes; its message is passed on."""
    assert parse_answer(b'{"v": 1, "ok": false, "code": "asleep", "message": "later"}') == RequestFault(
        Code.FAILED, "later"
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"hello", b'{"v": 1}', b'{"v": 1, "ok": true}', b'{"v": 1, "ok": 1, "result": {}}', b"[" * 200000,
     b'{"v": 1, "ok": true, "result": []}', b'{"v": 1, "ok": false, "code": "busy"}',
     b'{"v":1,"ok":false,"message":""}'],
    ids=range(10),
)  # fmt: skip
def test_other_bytes_are_not_an_answer(data: bytes) -> None:
    """Bytes that cannot be read as an answer are never taken for a result."""
    fault = parse_answer(data)
    assert isinstance(fault, RequestFault)
    assert fault.code is Code.FAILED


def test_an_answer_in_another_version_is_reported_as_such() -> None:
    """After an upgrade the daemon may be older or newer than the client, which says what to do."""
    fault = parse_answer(b'{"v": 2, "ok": true, "result": {}}')
    assert isinstance(fault, RequestFault)
    assert fault.code is Code.UNSUPPORTED_VERSION
    assert "systemctl restart fwguardd" in fault.message


@pytest.mark.parametrize("result", [{"a": {1, 2}}, {"a": float("nan")}, {"a": b""}])
def test_a_result_that_is_not_json_is_a_failure(result: dict[str, Any]) -> None:
    """Encoding never raises: a bug in a verb does not leave the client without an answer."""
    fault = parse_answer(encode_answer(Answer(result))[:-1])
    assert isinstance(fault, RequestFault)
    assert fault.code is Code.FAILED


def test_a_result_that_holds_itself_is_a_failure() -> None:
    """A result that contains itself is not encoded."""
    circle: dict[str, Any] = {}
    circle["self"] = circle
    assert isinstance(parse_answer(encode_answer(Answer(circle))), RequestFault)


def test_the_size_of_an_answer_is_limited() -> None:
    """A result beyond the limit is answered with a failure."""
    line = encode_answer(Answer({"text": "x" * LARGEST_ANSWER}))
    assert parse_answer(line[:-1]) == RequestFault(Code.FAILED, f"the result is larger than {LARGEST_ANSWER} bytes")
