"""A dataclass whose class is made faster than by the standard library: the programs start with hundreds of them.

`dataclasses.dataclass` writes and compiles six functions for each class, which took 40 % of the start of the daemon,
and looks at each field, which took 12 %. Here the class is made with its slots and methods at once; ``__init__`` is
compiled when the first object is made, the others are not compiled at all. The standard library collects the fields
when they are asked for. Type checkers see `dataclasses.dataclass`.

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
        """A decorator: a class with slots, whose objects are equal by value, and can be hashed if they are frozen.

        All its fields are its own, as a base class has none. Its annotations are not evaluated, as by the import from
        `__future__` in each module.
        """
        assert slots, "objects with a __dict__ are not made here"

        def make(cls: type) -> type:
            written = dict(vars(cls))
            annotations = {name: kind for name, kind in cls.__annotations__.items() if kind[:8] != "ClassVar"}
            names = tuple(annotations)
            values = {name: written.pop(name) for name in names if name in written}
            for name in ("__dict__", "__weakref__"):
                written.pop(name, None)
            own = {**_methods(names, values, frozen=frozen), **written, "__qualname__": cls.__qualname__}
            own |= {"__slots__": names, "__dataclass_params__": _PARAMETERS}
            own["__dataclass_fields__"] = _FieldsLater(annotations, values)
            made = type(cls)(cls.__name__, cls.__bases__, own)
            if "__init__" not in written:
                made.__init__ = _init_at_first(made)
            return made

        return make


class _FieldsLater:
    """Stands for the fields of a class until they are asked for."""

    def __init__(self, annotations: Mapping[str, str], values: Mapping[str, object]) -> None:
        self._annotations, self.values = annotations, values
        """``values`` are by name what the class gives for a field: a default, or what `dataclasses.field` returned."""
        self._fields: Mapping[str, Field] | None = None

    def __get__(self, _one: object, cls: type) -> Mapping[str, Field]:
        if self._fields is None:
            # With a docstring the standard library need not work out one from the signature, which takes longest.
            written = {"__annotations__": self._annotations, "__doc__": cls.__name__, **self.values}
            made: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(type(cls.__name__, (), written))
            self._fields = made.__dataclass_fields__
        return self._fields


@dataclasses.dataclass(init=False, repr=False, eq=False)
class _Sample:
    """Has the attribute that says how a dataclass was made, which printers of the standard library read."""


_PARAMETERS = vars(_Sample)["__dataclass_params__"]


def _methods(names: tuple[str, ...], values: Mapping[str, object], *, frozen: bool) -> Mapping[str, object]:
    written = [(name, value) for name, value in values.items() if isinstance(value, dataclasses.Field)]
    getter = _values_of(_marked("compare", names, written))
    methods: dict[str, object] = {
        "__eq__": _equality(getter),
        "__hash__": None,
        "__repr__": _representation(_marked("repr", names, written)),
        "__match_args__": _marked("init", names, written),
    }
    if frozen:
        methods |= {"__setattr__": _refuse, "__delattr__": _refuse, "__hash__": lambda self: hash(getter(self))}
    return methods


def _marked(mark: str, names: tuple[str, ...], written: Sequence[tuple[str, Field]]) -> tuple[str, ...]:
    """The names of the fields that have a mark: all but those that are written with `dataclasses.field` without it."""
    unmarked = [name for name, field in written if not getattr(field, mark)]
    if not unmarked:
        return names
    return tuple(name for name in names if name not in unmarked)


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


def _init_at_first(cls: Any) -> Method:
    """A method __init__ of a class that puts a compiled one in its place when it is called. Two threads that call it at
    once both compile one."""

    def init(self: object, *args: object, **named: object) -> None:
        compiled = cls.__init__ = _compiled(cls)
        compiled(self, *args, **named)

    return init


_NOT_GIVEN = object()
"""The default of an argument for which a function makes the value."""


def _compiled(cls: Any) -> Method:
    """A method __init__ that sets each slot, also of a frozen object."""
    names: dict[str, Any] = {"_not_given": _NOT_GIVEN}
    arguments, lines = ["self"], ["pass"]
    values = vars(cls)["__dataclass_fields__"].values
    for name in cls.__slots__:
        names[f"_set_{name}"] = getattr(cls, name).__set__
        value = values.get(name, _NOT_GIVEN)
        if isinstance(value, dataclasses.Field):
            _put_field(value, name, names, arguments, lines)
            continue
        names[f"_default_{name}"] = value
        arguments.append(_argument(name, has_default=value is not _NOT_GIVEN))
        lines.append(f"_set_{name}(self, {name})")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    exec(f"def __init__({', '.join(arguments)}):\n  " + "\n  ".join(lines), names)  # noqa: S102 - as dataclasses does.
    method: Method = names["__init__"]
    method.__qualname__ = f"{cls.__qualname__}.__init__"
    return method


def _argument(name: str, *, has_default: bool) -> str:
    if has_default:
        return f"{name}=_default_{name}"
    return name


def _put_field(field: Field, name: str, names: dict[str, Any], arguments: list[str], lines: list[str]) -> None:
    """What is written with `dataclasses.field`: the value is the argument, the default, or what a function makes."""
    names[f"_default_{name}"], value = field.default, name
    has_default = field.default is not dataclasses.MISSING
    if not field.init:
        value = f"_default_{name}"
    if field.default_factory is not dataclasses.MISSING:
        names[f"_default_{name}"], names[f"_make_{name}"] = _NOT_GIVEN, field.default_factory
        value, has_default = f"_make_{name}() if {value} is _not_given else {value}", True
    if field.init:
        arguments.append(_argument(name, has_default=has_default))
    lines.append(f"_set_{name}(self, {value})")
