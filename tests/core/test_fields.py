"""Fields of a dataclass read from JSON values and from texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from trimtab.core.errors import OptionError
from trimtab.core.fields import build, convert, fields_of


@dataclass(frozen=True)
class Example:
    """An example.

    Attributes:
        ratio: how much,
            in two lines.
        mode: which way.
    """

    ratio: float = 0.5
    count: int | None = None
    mode: Literal["fast", "exact"] = "fast"
    names: tuple[str, ...] = ()


def test_documentation_comes_from_the_docstring() -> None:
    assert fields_of(Example)["ratio"].help == "how much, in two lines."
    assert fields_of(Example)["mode"].choices == ("fast", "exact")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "3", 3),
        (int, 3.0, 3),
        (float, "1e-3", 1e-3),
        (float, 2, 2.0),
        (bool, "no", False),
        (int | None, "none", None),
        (tuple[str, ...], "a,b", ("a", "b")),
        (tuple[int, ...], [4, 1], (4, 1)),
        (Literal["a", "b"], "b", "b"),
        (dict[str, Any], {"a": 1}, {"a": 1}),
    ],
)
def test_values_and_texts_are_converted(kind: Any, value: Any, expected: Any) -> None:
    assert convert(kind, value, where="here") == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [(int, "3.5"), (int, True), (float, "fast"), (bool, "maybe"), (str, 3), (tuple[int, ...], 3)],
)
def test_a_wrong_value_is_refused_with_its_field(kind: Any, value: Any) -> None:
    with pytest.raises(OptionError, match="here"):
        convert(kind, value, where="here")


def test_an_unknown_field_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'ratio'"):
        build(Example, {"ration": 1}, where="example")


def test_an_unknown_choice_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'exact'"):
        build(Example, {"mode": "exakt"}, where="example")
