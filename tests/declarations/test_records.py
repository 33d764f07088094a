"""Records take their fields by position or by name, and name what is wrong with them."""

import pytest

from fastact._declarations.records import ACTIVATIONS, LIBRARIES, Record, of_rows


class Point(Record):
    x: float
    y: float = 2.0


class Space(Point):
    z: float = 3.0


def test_fields_are_inherited_and_have_defaults():
    assert Space.fields == ("x", "y", "z")
    point = Space(1.0, z=4.0)
    assert (point.x, point.y, point.z) == (1.0, 2.0, 4.0)
    assert vars(point) == {"x": 1.0, "z": 4.0}


@pytest.mark.parametrize(
    ("values", "named", "got"),
    [
        ((), {}, "missing: ['x']"),
        ((1.0,), {"x": 1.0}, "twice: ['x']"),
        ((1.0, 2.0, 3.0), {}, "without a name: [3.0]"),
        ((1.0,), {"w": 1.0}, "unknown: ['w']"),
        ((), {"w": 1.0}, "unknown: ['w']; missing: ['x']"),
    ],
)
def test_wrong_fields_are_named(values, named, got):
    with pytest.raises(TypeError) as raised:
        Point(*values, **named)
    assert str(raised.value) == f"Point: expected x, y; got {got}"


def test_libraries_are_named_in_one_way():
    for declared in [*ACTIVATIONS.values(), *of_rows().values()]:
        assert declared.elsewhere.keys() <= {*LIBRARIES}
        order = [library for library in LIBRARIES if library in declared.elsewhere]
        assert [*declared.elsewhere] == order
