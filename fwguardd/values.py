"""A dataclass whose class is made faster than by the standard library: the programs start with hundreds of them.

`dataclasses.dataclass` writes and compiles six functions for each class, which took 40 % of the start of the daemon.
Here the standard library collects the fields and makes the class, and the methods are added: ``__init__`` is compiled
when the first object is made, the others are not compiled at all. Type checkers see `dataclasses.dataclass`.

This module is pure.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ("dataclass",)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from dataclasses import dataclass

    Field = dataclasses.Field[Any]
    Method = Callable[..., Any]
else:

    def dataclass(*, slots: bool, frozen: bool = False) -> Callable[[type], type]:
        """A decorator: a class with slots, whose objects are equal by value, and can be hashed if they are frozen."""
        assert slots, "objects with a __dict__ are not made here"

        def make(cls: type) -> type:
            # The standard library would work out a docstring from the signature, which takes longer than all else.
            cls.__doc__ = cls.__doc__ or cls.__name__
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
            fields = dataclasses.fields(made)
            for name, method in _methods(made, fields, frozen=frozen).items():
                setattr(made, name, vars(cls).get(name) or method)
            return made

        return make


def _methods(cls: type, fields: Sequence[Field], *, frozen: bool) -> Mapping[str, Method | None]:
    values = _values_of(tuple(field.name for field in fields if field.compare))
    methods: dict[str, Method | None] = {
        "__init__": _compiled_at_first(cls, fields),
        "__eq__": _equality(values),
        "__hash__": None,
        "__repr__": _representation(tuple(field.name for field in fields if field.repr)),
    }
    if frozen:
        methods |= {"__setattr__": _refuse, "__delattr__": _refuse, "__hash__": lambda self: hash(values(self))}
    return methods


def _values_of(names: tuple[str, ...]) -> Callable[[object], tuple[object, ...]]:
    """A function from an object to the values that it is compared by."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda each: tuple(getattr(each, name) for name in names)


def _equality(values: Callable[[object], tuple[object, ...]]) -> Method:
    def equal(self: object, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    return equal


def _representation(names: tuple[str, ...]) -> Method:
    def represent(self: object) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({shown})"

    return recursive_repr("...")(represent)


def _refuse(self: object, name: str, *_value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"a {self.__class__.__qualname__} cannot be changed: {name!r}")


def _compiled_at_first(cls: type, fields: Sequence[Field]) -> Method:
    """A method __init__ that puts a compiled one in its place when it is called."""

    def init(self: object, *args: object, **named: object) -> None:
        compiled = _compiled(cls, fields)
        cls.__init__ = compiled  # type: ignore[misc]
        compiled(self, *args, **named)

    return init


_NOT_GIVEN = object()
"""The default of an argument for which a function makes the value."""


def _compiled(cls: type, fields: Sequence[Field]) -> Method:
    """A method __init__ that sets each slot, also of a frozen object."""
    names: dict[str, Any] = {"_not_given": _NOT_GIVEN}
    arguments, lines = ["self"], ["pass"]
    for field in fields:
        name = field.name
        names |= {f"_set_{name}": getattr(cls, name).__set__, f"_default_{name}": field.default}
        names |= {f"_make_{name}": field.default_factory}
        if field.init:
            arguments.append(_argument(field))
        lines.append(f"_set_{name}(self, {_value(field)})")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    exec(f"def __init__({', '.join(arguments)}):\n  " + "\n  ".join(lines), names)  # noqa: S102 - as dataclasses does.
    method: Method = names["__init__"]
    method.__qualname__ = f"{cls.__qualname__}.__init__"
    return method


def _argument(field: Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"{field.name}=_not_given"
    if field.default is not dataclasses.MISSING:
        return f"{field.name}=_default_{field.name}"
    return field.name


def _value(field: Field) -> str:
    """The expression for the value of a field: its argument, its default, or what the function makes."""
    name, made = field.name, f"_make_{field.name}()"
    if field.default_factory is dataclasses.MISSING:
        return name if field.init else f"_default_{name}"
    return f"{made} if {name} is _not_given else {name}" if field.init else made
