"""Outputs that are maps keep their type in files, and are arrays where they are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from contract_graphs import named_classes

from trimtab.core.errors import ModelError
from trimtab.core.maps import as_array
from trimtab.core.metrics.fidelity import fidelity_of
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run

X = np.random.default_rng(3).standard_normal((5, 8)).astype(np.float32)
NUMBER = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])


def test_a_file_has_the_type_that_it_had(tmp_path: Path) -> None:
    made = Model.load(named_classes().save(tmp_path / "m.onnx")).to_proto()
    onnx.checker.check_model(made, full_check=True)
    held = made.graph.output[1].type.sequence_type.elem_type.map_type
    assert (held.key_type, held.value_type) == (onnx.TensorProto.STRING, NUMBER)
    assert not made.graph.output[1].metadata_props


def test_rows_are_maps_for_others_and_an_array_here() -> None:
    model = named_classes()
    plain = ort.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    label, maps = plain.run(None, {"x": X})
    found = run(build_session(model), {"x": X})
    np.testing.assert_array_equal(found["label"], label)
    keys = ["drei", "eins", "zwei"]
    np.testing.assert_array_equal(found["maps"], [[row[key] for key in keys] for row in maps])
    assert found["maps"].dtype == np.float32


def test_maps_are_judged_as_the_class_scores_that_they_hold() -> None:
    model = named_classes()
    found = run(build_session(model), {"x": X})
    metric = fidelity_of(model, [found])
    assert metric.finish is not None
    told = metric.finish([metric.score(found, found)])
    assert [o.kind for o in told.outputs] == [
        "integers, equal or not",
        "class scores, the first class",
    ]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({2: 0.5, 1: 0.25}, [0.25, 0.5]),
        ([{"b": 1, "a": 2}, {"b": 3}], [[2, 1], [0, 3]]),
    ],
)
def test_a_column_for_each_key_in_their_order(output: object, expected: list[object]) -> None:
    np.testing.assert_array_equal(as_array(output), expected)


@pytest.mark.parametrize("output", [[], [np.zeros(2)], np.zeros(2)])
def test_what_holds_no_map_stays(output: object) -> None:
    assert as_array(output) is output


def test_an_input_of_maps_is_refused_by_its_name() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(named_classes().to_proto())
    held = onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, NUMBER)
    proto.graph.input.append(onnx.helper.make_value_info("words", held))
    with pytest.raises(ModelError, match="its input 'words' is of the type map"):
        Model.from_proto(proto)
