"""What must hold of the control protocol for all bytes and all JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fwguardd.control.protocol import (
    VERBS,
    Answer,
    Argument,
    ArgumentType,
    Code,
    Request,
    RequestFault,
    Verb,
    encode_answer,
    encode_request,
    parse_answer,
    parse_request,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
argument_names = st.sampled_from(sorted({argument.name for verb in VERBS.values() for argument in verb.arguments}))
near_requests = st.fixed_dictionaries(
    {},
    optional={
        "v": st.just(1) | json_values,
        "verb": st.sampled_from(sorted(VERBS)) | json_values,
        "args": st.dictionaries(argument_names | st.text(max_size=5), json_values, max_size=3) | json_values,
        "more": json_values,
    },
)


def good_values(argument: Argument) -> st.SearchStrategy[Any]:
    """What the table allows for an argument."""
    whole = st.integers(int(argument.least), int(argument.most))
    match argument.kind:
        case ArgumentType.FLAG:
            return st.booleans()
        case ArgumentType.TEXT:
            return st.text(max_size=int(argument.most))
        case ArgumentType.WHOLE:
            return whole
        case ArgumentType.NUMBERS:
            return st.lists(whole, max_size=5)
        case ArgumentType.SECONDS:
            return st.floats(argument.least, argument.most)


def check_value(argument: Argument, value: Any) -> None:
    """A value is of the type that the table names, and within its bounds."""
    match argument.kind:
        case ArgumentType.FLAG:
            assert type(value) is bool
        case ArgumentType.NUMBERS:
            assert type(value) is tuple
            assert all(type(number) is int and argument.least <= number <= argument.most for number in value)
        case ArgumentType.WHOLE:
            assert type(value) is int
            assert argument.least <= value <= argument.most
        case ArgumentType.SECONDS:
            assert type(value) is float
            assert argument.least <= value <= argument.most


@st.composite
def good_requests(draw: st.DrawFn) -> tuple[Verb, dict[str, Any]]:
    """A verb of the table with arguments inside their bounds."""
    verb = draw(st.sampled_from([VERBS[name] for name in sorted(VERBS)]))
    args: dict[str, Any] = {}
    for argument in verb.arguments:
        if argument.required or draw(st.booleans()):
            args[argument.name] = draw(good_values(argument))
    return verb, args


def check(outcome: Request | RequestFault) -> None:
    """A request is one that the table allows; a fault is short, printable and in ASCII but for an ellipsis."""
    if isinstance(outcome, RequestFault):
        assert outcome.code in (Code.BAD_REQUEST, Code.UNKNOWN_VERB, Code.UNSUPPORTED_VERSION)
        assert outcome.message.isprintable()
        assert len(outcome.message) < 400
        return
    assert VERBS[outcome.verb.name] is outcome.verb
    assert set(outcome.args) == {argument.name for argument in outcome.verb.arguments}
    for argument in outcome.verb.arguments:
        value = outcome.args[argument.name]
        if value is None:
            assert not argument.required
        else:
            check_value(argument, value)


@given(st.binary(max_size=300))
def test_any_bytes_are_read(data: bytes) -> None:
    """Reading a request is total: any bytes are a request or a fault."""
    check(parse_request(data))


@given(json_values)
def test_any_json_is_read(value: object) -> None:
    """Any JSON document is a request or a fault."""
    check(parse_request(json.dumps(value).encode()))


@given(near_requests)
def test_whatever_resembles_a_request_is_read(document: dict[str, Any]) -> None:
    """A request of which any part is something else is a fault, or is within the table; nothing between passes."""
    check(parse_request(json.dumps(document).encode()))


@given(good_requests(), st.data())
def test_a_torn_or_changed_request_is_read(request: tuple[Verb, dict[str, Any]], data: st.DataObject) -> None:
    """A request that is cut off anywhere, or of which a byte is another, is read without an exception."""
    line = encode_request(request[0].name, request[1])[:-1]
    position = data.draw(st.integers(0, len(line) - 1))
    assert isinstance(parse_request(line[:position]), RequestFault)
    check(parse_request(line[:position] + data.draw(st.binary(max_size=2)) + line[position + 1 :]))


@given(good_requests())
def test_every_good_request_survives_the_journey(request: tuple[Verb, dict[str, Any]]) -> None:
    """What the table allows is read as it was meant."""
    verb, args = request
    outcome = parse_request(encode_request(verb.name, args)[:-1])
    assert isinstance(outcome, Request)
    assert outcome.verb is verb
    for argument in verb.arguments:
        value, read = args.get(argument.name), outcome.args[argument.name]
        if isinstance(value, list):
            value = tuple(value)
        assert read == value


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_read(data: bytes) -> None:
    """Reading an answer is total: anything is a result or a fault."""
    assert isinstance(parse_answer(data), (Answer, RequestFault))


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=4))
def test_any_result_is_told(result: dict[str, Any]) -> None:
    """Encoding is total: one line that is read back as the same result, or as a fault where JSON has no word for it."""
    line = encode_answer(Answer(result))
    assert line.index(b"\n") == len(line) - 1
    shown = parse_answer(line[:-1])
    assert shown == Answer(result) or (
        isinstance(shown, RequestFault) and any(word in repr(result) for word in ("nan", "inf"))
    )
