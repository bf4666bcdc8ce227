"""The protocol of the control socket: JSON lines over a unix stream socket, one request and one answer a connection.

The client sends one line and reads one line; then both close the connection. Everything is UTF-8.

    request   {"v": 1, "verb": "history", "args": {"limit": 10}}
    answer    {"v": 1, "ok": true, "result": {...}}
              {"v": 1, "ok": false, "code": "unknown-verb", "message": "..."}

``v`` is the version of the protocol. A request of another version is answered with "unsupported-version". ``args`` may
be left out, and so may an optional argument; null means the same. The verbs and their arguments are in `VERBS`, the
codes in `Code`, the results in `control.documents`. Within a version they only grow: a client ignores keys of a result
that it does not know. With its newline a request has at most `LARGEST_REQUEST` bytes, an answer `LARGEST_ANSWER`.

A request with anything in it that is unknown, of another type, out of bounds or repeated is refused as a whole, because
a verb that does something other than what was requested is worse than one that does nothing. Reading never raises,
whatever arrives. This module is pure.
"""

from __future__ import annotations

import json
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import UnionType

VERSION = 1
LARGEST_REQUEST, LARGEST_ANSWER = 64 << 10, 64 << 20
LONGEST_QUOTE = 40
"""Characters that a message quotes of what a client sent."""

LARGEST_WHOLE = (1 << 53) - 1
"""The largest number that every reader of JSON reads exactly (RFC 8259, section 6)."""


class Code(StrEnum):
    """Why a request was not performed."""

    BAD_REQUEST = "bad-request"
    UNKNOWN_VERB = "unknown-verb"
    UNSUPPORTED_VERSION = "unsupported-version"
    NOT_PERMITTED = "not-permitted"
    NOT_FOUND = "not-found"
    BUSY = "busy"
    FAILED = "failed"


class ArgumentType(StrEnum):
    """The type of an argument. The bounds are those of each number, and of the length of a text."""

    WHOLE = "whole"
    SECONDS = "seconds"
    FLAG = "flag"
    NUMBERS = "numbers"
    TEXT = "text"


Value = int | float | bool | str | tuple[int, ...] | None
"""A value of an argument; None if it was not given."""

MOST_NUMBERS = 10_000
"""Numbers in one list."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a verb: its type, the bounds of its value, and whether it must be given."""

    name: str
    kind: ArgumentType
    least: float = 0
    most: float = 1
    required: bool = False


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the protocol. ``reads`` says that it changes nothing, neither the kernel nor the daemon."""

    name: str
    reads: bool
    arguments: tuple[Argument, ...] = ()


_DAY = 86400

VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        verb.name: verb
        for verb in (
            Verb("status", reads=True),
            Verb(
                "reload",
                reads=False,
                arguments=(
                    Argument("confirm_seconds", ArgumentType.SECONDS, 1, _DAY),
                    Argument("take_over", ArgumentType.FLAG),
                    Argument("force", ArgumentType.FLAG),
                    Argument("ssh_connection", ArgumentType.TEXT, 0, 200),
                ),
            ),
            Verb("confirm", reads=False),
            Verb("rollback", reads=False, arguments=(Argument("revision", ArgumentType.WHOLE, 1, LARGEST_WHOLE),)),
            Verb("history", reads=True, arguments=(Argument("limit", ArgumentType.WHOLE, 1, LARGEST_WHOLE),)),
            Verb(
                "show",
                reads=True,
                arguments=(Argument("revision", ArgumentType.WHOLE, 1, LARGEST_WHOLE, required=True),),
            ),
            Verb("open", reads=False, arguments=(Argument("seconds", ArgumentType.SECONDS, 1, _DAY),)),
            Verb("hold", reads=False),
            Verb("drift", reads=True),
            Verb("pause", reads=False, arguments=(Argument("seconds", ArgumentType.SECONDS, 1, _DAY, required=True),)),
            Verb("resume", reads=False),
            Verb("others", reads=True),
            Verb("counters", reads=True),
            Verb("metrics", reads=True),
            Verb(
                "adopt",
                reads=False,
                arguments=(
                    Argument("numbers", ArgumentType.NUMBERS, 1, LARGEST_WHOLE),
                    Argument("remove", ArgumentType.FLAG),
                ),
            ),
        )
    }
)
"""Every verb by its name."""


@dataclass(frozen=True, slots=True)
class Request:
    """A verb with all its arguments, checked against the table; an argument that was not given is None."""

    verb: Verb
    args: Mapping[str, Value]

    def whole(self, name: str) -> int | None:
        """A whole number, or None if it was not given."""
        value = self.args[name]
        return int(value) if isinstance(value, (int, float)) else None

    def seconds(self, name: str) -> float | None:
        """A duration, or None if it was not given."""
        value = self.args[name]
        return float(value) if isinstance(value, (int, float)) else None

    def flag(self, name: str) -> bool:
        """True or false; false if it was not given."""
        return self.args[name] is True

    def text(self, name: str) -> str:
        """A text; "" if it was not given."""
        return str(self.args[name] or "")

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """A list of whole numbers, or None if it was not given."""
        value = self.args[name]
        return value if isinstance(value, tuple) else None


@dataclass(frozen=True, slots=True)
class RequestFault:
    """Why a request was not performed: a code for programs and a sentence for people."""

    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a verb."""

    result: Mapping[str, Any]


class RequestError(Exception):
    """Raised by the function that performs a verb, to answer with a code and a sentence instead of a result."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


_CODES = {code.value: code for code in Code}
_NUMBERS: Mapping[ArgumentType, type[int] | UnionType] = {
    ArgumentType.WHOLE: int,
    ArgumentType.NUMBERS: int,
    ArgumentType.SECONDS: int | float,
}
_TYPE_NAMES = {
    ArgumentType.WHOLE: "whole number",
    ArgumentType.NUMBERS: "list of whole numbers",
    ArgumentType.SECONDS: "number of seconds",
}


class _Misfit(Exception):  # noqa: N818 - control flow inside this module; it never leaves it.
    def __init__(self, message: str, code: Code = Code.BAD_REQUEST) -> None:
        super().__init__(message)
        self.code = code


def parse_request(data: bytes) -> Request | RequestFault:
    """Read a request from its line, without the newline. Never raises."""
    if len(data) >= LARGEST_REQUEST:
        return RequestFault(Code.BAD_REQUEST, f"a request has at most {LARGEST_REQUEST} bytes")
    try:
        return _request(_document(data))
    except _Misfit as misfit:
        return RequestFault(misfit.code, str(misfit))


def _request(document: dict[str, Any]) -> Request:
    unknown = sorted(document.keys() - {"v", "verb", "args"})
    if unknown:
        raise _Misfit(f"a request has no {_quoted(unknown[0])}, only v, verb and args")
    name = document.get("verb")
    if not isinstance(name, str):
        raise _Misfit('"verb" must be the name of a verb')
    verb = VERBS.get(name)
    if verb is None:
        raise _Misfit(f"unknown verb {_quoted(name)}; the verbs are {', '.join(VERBS)}", Code.UNKNOWN_VERB)
    return Request(verb, _arguments(verb, document.get("args")))


def _check_names(verb: Verb, given: dict[str, Any]) -> None:
    unknown = sorted(given.keys() - {argument.name for argument in verb.arguments})
    if unknown:
        raise _Misfit(f"{verb.name} has no argument {_quoted(unknown[0])}")


def _arguments(verb: Verb, given: object) -> dict[str, Value]:
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise _Misfit('"args" must be an object')
    _check_names(verb, given)
    return {argument.name: _value(verb, argument, given.get(argument.name)) for argument in verb.arguments}


def _value(verb: Verb, argument: Argument, value: object) -> Value:
    name = f"the argument {argument.name} of {verb.name}"
    if value is None:
        if argument.required:
            raise _Misfit(f"{name} is missing")
        return None
    if argument.kind is ArgumentType.FLAG:
        if not isinstance(value, bool):
            raise _Misfit(f"{name} must be true or false")
        return value
    if argument.kind is ArgumentType.TEXT:
        return _text(name, argument, value)
    if argument.kind is ArgumentType.NUMBERS:
        return _numbers(name, argument, value)
    number = _bounded(name, argument, value)
    if argument.kind is ArgumentType.SECONDS:
        return float(number)
    return number


def _numbers(name: str, argument: Argument, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MOST_NUMBERS:
        raise _Misfit(f"{name} must be a list of at most {MOST_NUMBERS} whole numbers")
    return tuple(int(_bounded(name, argument, item)) for item in value)


def _text(name: str, argument: Argument, value: object) -> str:
    if not isinstance(value, str) or len(value) > argument.most:
        raise _Misfit(f"{name} must be a text of at most {argument.most:g} characters")
    return value


def _bounded(name: str, argument: Argument, value: object) -> int | float:
    number = _number(name, argument.kind, value)
    if not argument.least <= number <= argument.most:
        raise _Misfit(f"{name} must be from {argument.least:.16g} to {argument.most:.16g}")
    return number


def _number(name: str, kind: ArgumentType, value: object) -> int | float:
    # In Python a bool is an int; in JSON true is not a number.
    if isinstance(value, bool) or not isinstance(value, _NUMBERS[kind]):
        raise _Misfit(f"{name} must be a {_TYPE_NAMES[kind]}")
    return value


def parse_answer(data: bytes) -> Answer | RequestFault:
    """Read an answer from its line, without the newline. Never raises: what cannot be read is a RequestFault."""
    try:
        return _answer(_document(data))
    except _Misfit as misfit:
        if misfit.code is Code.UNSUPPORTED_VERSION:
            return RequestFault(misfit.code, str(misfit))
        return RequestFault(Code.FAILED, f"the answer of fwguardd cannot be read: {misfit}")


_NO_RESULT: Final = "it has neither a result nor a reason"


def _answer(document: dict[str, Any]) -> Answer | RequestFault:
    ok, result = document.get("ok"), document.get("result")
    if ok is True and isinstance(result, dict):
        return Answer(result)
    if ok is not False:
        raise _Misfit(_NO_RESULT)
    return _fault(document)


def _fault(document: dict[str, Any]) -> RequestFault:
    code, message = document.get("code"), document.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        raise _Misfit(_NO_RESULT)
    # A newer daemon may know more codes than this client does.
    return RequestFault(_CODES.get(code, Code.FAILED), message)


def encode_request(verb: str, args: Mapping[str, Value]) -> bytes:
    """The line of a request."""
    return _line({"v": VERSION, "verb": verb, "args": dict(args)})


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """An answer as its line, which another thread or process has encoded."""

    line: bytes


def encode_answer(answer: Answer | EncodedAnswer | RequestFault) -> bytes:
    """The line of an answer. Never raises: for a result that is too large, or not JSON, the answer is a fault."""
    if isinstance(answer, EncodedAnswer):
        return answer.line
    if isinstance(answer, RequestFault):
        return _line({"v": VERSION, "ok": False, "code": answer.code.value, "message": answer.message})
    try:
        line = _line({"v": VERSION, "ok": True, "result": dict(answer.result)})
    except (TypeError, ValueError, RecursionError) as error:
        return encode_answer(RequestFault(Code.FAILED, f"the result is not JSON: {error}"))
    if len(line) > LARGEST_ANSWER:
        return encode_answer(RequestFault(Code.FAILED, f"the result is larger than {LARGEST_ANSWER} bytes"))
    return line


def _line(document: dict[str, Any]) -> bytes:
    # Characters beyond ASCII are escaped, so that file names which are not UTF-8 (surrogates, PEP 383) come through.
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def _document(data: bytes) -> dict[str, Any]:
    """A JSON object of this version of the protocol."""
    document = _json(data)
    if not isinstance(document, dict):
        raise _Misfit("not a JSON object")
    _check_version(document.get("v"))
    return document


def _check_version(version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int):
        raise _Misfit(f'"v" must be the version of the protocol, {VERSION}')
    if version != VERSION:
        other = f"the other end uses another version of the protocol than {VERSION}"
        raise _Misfit(f"{other}; after an upgrade: systemctl restart fwguardd", Code.UNSUPPORTED_VERSION)


def _json(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise _Misfit("not UTF-8") from error
    except ValueError as error:
        raise _Misfit(f"not JSON: {error}") from error
    except RecursionError as error:
        raise _Misfit("not readable JSON: nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Misfit("a key is repeated")
    return made


def _no_number(name: str) -> float:
    raise _Misfit(f"not JSON: {name} is not a number")


def _quoted(text: str) -> str:
    """What a client sent, short and in printable ASCII."""
    if len(text) > LONGEST_QUOTE:
        return f"{text[:LONGEST_QUOTE]!a}…"
    return f"{text!a}"
