"""Computed shapes as known sizes and axes of other values."""

from __future__ import annotations

import pytest
from rewrite_cases import shaped

from trimtab.passes.rewrites.dimensions import Axis, shape_items, sizes_of

GRAPH = """(float[n,4,l] x) => (float[a,b] y)
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] rest = {-1},
     int64 last = {2}, int64[1] eight = {8}> {
        s = Shape (x)
        %s
        y = Reshape (x, t)
    }"""


def target(text: str) -> list[int | Axis] | None:
    graph = shaped(GRAPH % text).graph
    return shape_items(next(n for n in graph if n.op_type == "Reshape").inputs[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t = Concat <axis=0> (rest, eight)", [-1, 8]),
        ("a = Slice (s, zero, two) t = Concat <axis=0> (a, rest)", [Axis("n"), 4, -1]),
        ("a = Slice (s, zero, two, zero, one) t = Cast <to=7> (a)", [Axis("n"), 4]),
        (
            "a = Gather (s, last) b = Unsqueeze (a, zero) t = Concat <axis=0> (b, rest)",
            [Axis("l"), -1],
        ),
        ("a = Shape <start=1, end=2> (x) t = Concat <axis=0> (a, rest)", [4, -1]),
        ("a = Mul (s, s) t = Slice (a, zero, two)", None),
        ("a = Slice (s, zero, two, zero, two) t = Concat <axis=0> (a, rest)", None),
    ],
)
def test_a_computed_shape_is_returned_as_sizes_and_axes(
    text: str, expected: list[int | Axis] | None
) -> None:
    assert target(text) == expected


def test_a_reshape_has_the_sizes_that_it_is_given() -> None:
    graph = shaped(GRAPH % "a = Slice (s, zero, two) t = Identity (a)").graph
    assert sizes_of(graph.inputs[0]) == [Axis("n"), 4, Axis("l")]


def test_a_size_of_zero_is_unknown() -> None:
    graph = shaped("(float[0,4] x) => (float[0,4] y) { y = Relu (x) }").graph
    assert sizes_of(graph.inputs[0]) == [Axis("x", 0), 4]
