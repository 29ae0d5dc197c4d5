"""Shapes and types of inner tensors, by a run that keeps none of them."""

from __future__ import annotations

import graphs
import onnx_ir as ir
import pytest

from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.inner_shapes import inner_bytes, inner_shapes, inner_tensors
from trimtab.core.ort.session import SessionConfig, build_session, run


@pytest.mark.parametrize("make", [graphs.cnn, graphs.transformer])
def test_shapes_and_bytes_are_those_of_the_tensors(make) -> None:
    model = make()
    names = [str(value.name) for node in model.graph for value in node.outputs]
    feeds = random_feeds(model, batch=2)
    arrays = run(build_session(with_outputs(model, names)), feeds, names)
    assert inner_shapes(model, names, feeds) == {n: arrays[n].shape for n in names}
    assert inner_bytes(model, names, feeds) == {n: arrays[n].nbytes for n in names}


def test_a_sequence_has_no_shape() -> None:
    model = graphs.model_of(
        "(float[2, 3] x) => (float[k, 3] y) "
        "{ s = SplitToSequence (x) h = Cast <to = 10> (x) y = ConcatFromSequence <axis = 0> (s) }"
    )
    found = inner_tensors(model, random_feeds(model), SessionConfig())
    assert {name: (t.dtype, t.shape, t.nbytes) for name, t in found.items()} == {
        "h": (ir.DataType.FLOAT16, (2, 3), 12),
        "y": (ir.DataType.FLOAT, (2, 3), 24),
    }
