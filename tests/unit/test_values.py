"""The dataclass of this package is that of the standard library, made faster: the same fields, methods and errors."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from fwguardd.values import dataclass as ours

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[..., Callable[[type], type]]

made_by = pytest.mark.parametrize("dataclass", [dataclasses.dataclass, ours], ids=["standard library", "ours"])


def _point(dataclass: Decorator, *, frozen: bool = True) -> Any:
    class Point:
        """A point."""

        x: int
        y: int = 2
        seen: list[str] = field(default_factory=list, compare=False)
        note: str = field(default="none", repr=False)
        later: tuple[int, ...] = field(init=False, default=())
        own: dict[str, int] = field(init=False, default_factory=dict, compare=False)

        def double(self) -> int:
            return self.x * 2

    return dataclass(frozen=frozen, slots=True)(Point)


@made_by
def test_arguments_and_defaults(dataclass: Decorator) -> None:
    """Arguments by position and by name, defaults, and a new value of a default factory for each object."""
    point = _point(dataclass)
    first, second = point(1), point(x=1, y=5, seen=["a"], note="b")
    assert (first.x, first.y, first.seen, first.note, first.later, first.own) == (1, 2, [], "none", (), {})
    assert (second.y, second.seen, second.note) == (5, ["a"], "b")
    assert first.seen is not point(1).seen and first.own is not point(1).own
    assert first.double() == 2
    assert point.__match_args__ == ("x", "y", "seen", "note")
    assert not hasattr(first, "__dict__")


@made_by
@pytest.mark.parametrize("argv", [(), (1, 2, [], "a", ())])
def test_wrong_arguments_are_a_type_error(dataclass: Decorator, argv: tuple[object, ...]) -> None:
    """Too few and too many arguments raise TypeError, by the first object as by the later ones."""
    point = _point(dataclass)
    for _ in range(2):
        with pytest.raises(TypeError, match="__init__"):
            point(*argv)
    with pytest.raises(TypeError, match="nonsense"):
        point(1, nonsense=1)


@made_by
def test_equality_and_hash(dataclass: Decorator) -> None:
    """Objects of the same class are equal by the fields that are compared; equal objects have the same hash."""
    point, other = _point(dataclass), _point(dataclass)
    assert point(1, seen=["a"]) == point(1, seen=["b"])
    assert hash(point(1, seen=["a"])) == hash(point(1))
    assert point(1) != point(2) and point(1) != point(1, note="other")
    assert point(1) != other(1) and point(1) != 1


@made_by
def test_a_frozen_object_cannot_be_changed(dataclass: Decorator) -> None:
    """Setting and deleting a field raise FrozenInstanceError, which is an AttributeError."""
    one = _point(dataclass)(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        one.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        del one.x
    with pytest.raises((AttributeError, TypeError)):  # TypeError: a defect of the standard library up to 3.11.
        one.unknown = 2
    assert one.x == 1


@made_by
def test_an_object_that_is_not_frozen(dataclass: Decorator) -> None:
    """It can be changed, has no other attributes than its fields, and has no hash."""
    one = _point(dataclass, frozen=False)(1)
    one.x = 3
    assert one.x == 3 and one == _point_like(one)
    with pytest.raises(AttributeError):
        one.unknown = 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def _point_like(one: Any) -> Any:
    return type(one)(one.x)


@made_by
def test_the_functions_of_the_standard_library(dataclass: Decorator) -> None:
    """fields, replace, asdict and is_dataclass know the class."""
    point: Any = _point(dataclass)
    assert [each.name for each in dataclasses.fields(point)] == ["x", "y", "seen", "note", "later", "own"]
    assert dataclasses.replace(point(1), y=7) == point(1, 7)
    assert dataclasses.is_dataclass(point(1)) and dataclasses.asdict(point(1)) == {
        "x": 1,
        "y": 2,
        "seen": [],
        "note": "none",
        "later": (),
        "own": {},
    }


@made_by
def test_the_representation(dataclass: Decorator) -> None:
    """It names the class and the fields that are shown, and ends where an object contains itself."""
    point = _point(dataclass)
    one = point(1)
    expected = "_point.<locals>.Point(x=1, y=2, seen=[], later=(), own={})"
    assert repr(one) == expected
    one.seen.append(one)
    assert "seen=[...]" in repr(one)


@made_by
def test_methods_of_the_class_are_kept(dataclass: Decorator) -> None:
    """A class may have its own __repr__, and __post_init__ is called with the fields set."""
    found: list[int] = []

    class Own:
        number: int

        def __post_init__(self) -> None:
            found.append(self.number)

        def __repr__(self) -> str:
            return "own"

    made = dataclass(frozen=True, slots=True)(Own)
    assert repr(made(4)) == "own" and found == [4]


def test_a_class_of_one_field_and_one_of_none() -> None:
    """Comparing works for any number of fields."""

    class One:
        number: int

    class Empty:
        """Nothing."""

    one: Any = ours(frozen=True, slots=True)(One)
    empty: Any = ours(frozen=True, slots=True)(Empty)
    assert one(1) == one(1) != one(2) and len({one(1), one(1)}) == 1
    assert empty() == empty() and len({empty(), empty()}) == 1


@made_by
def test_what_belongs_to_the_class_is_no_field(dataclass: Decorator) -> None:
    """A ClassVar is an attribute of the class, and neither an argument nor compared."""

    class Named:
        kind: ClassVar[str] = "tcp"
        number: int

    made: Any = dataclass(frozen=True, slots=True)(Named)
    assert made.kind == made(1).kind == "tcp" and made(1) == made(1)
    assert [each.name for each in dataclasses.fields(made)] == ["number"]


def test_threads_that_make_the_first_object_at_once() -> None:
    """The method that each of them has begun to call makes an object, also if the other has replaced it."""
    point = _point(ours)
    begun = point.__init__
    assert point(1).x == 1
    assert point.__init__ is not begun
    second = object.__new__(point)
    begun(second, 2)
    assert (second.x, point(3).x) == (2, 3)


@made_by
def test_a_class_derived_from_one(dataclass: Decorator) -> None:
    """Its own __init__ may call that of the dataclass, also for the first object of all, and stays its own."""
    point: Any = _point(dataclass)

    class Double(point):  # type: ignore[misc]
        def __init__(self, x: int) -> None:
            super().__init__(2 * x)

    assert (Double(2).x, Double(3).x, point(4).x) == (4, 6, 4)
