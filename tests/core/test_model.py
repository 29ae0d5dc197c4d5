"""Models: read, written, cloned, compared by digest; files that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import model_of
from onnx import TensorProto, helper, numpy_helper

from trimtab.core import model as model_module
from trimtab.core.errors import ModelError, OutputError
from trimtab.core.lineage import Step
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session


def tiny(scale: float = 1.0, width: int = 3) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.full((4, width), scale, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_specs_keep_symbolic_names() -> None:
    (spec,) = Model.from_proto(tiny()).inputs
    assert (spec.name, spec.shape, str(spec)) == ("x", ("batch", 4), "x: [batch, 4] float32")


def test_lineage_survives_the_file(tmp_path: Path) -> None:
    model = Model.from_proto(tiny())
    step = Step("simplify", {"a": 1}, model.digest, {"declined": [["n", "why"]]})
    made = Model(model.ir, (step,), "m")
    assert Model.load(made.save(tmp_path / "m.onnx")).lineage == (step,)


def test_saving_does_not_change_the_graph(tmp_path: Path) -> None:
    """Lineage is written to the message; external weights stay external."""
    step = Step("x", {}, "d")
    made = Model(Model.from_proto(tiny()).ir, (step,), "m")
    assert Model.from_proto(made.to_proto()).lineage == (step,)
    assert not made.ir.metadata_props
    beside = Model.load(Model.from_proto(tiny(width=64)).spill(tmp_path))
    kinds = {name: type(v.const_value) for name, v in beside.graph.initializers.items()}
    beside.to_proto()
    assert {name: type(v.const_value) for name, v in beside.graph.initializers.items()} == kinds
    assert kinds == {"w": ir.ExternalTensor}


def test_a_message_can_be_made_while_its_external_weights_are_being_read(tmp_path: Path) -> None:
    model = Model.load(Model.from_proto(tiny(width=64)).spill(tmp_path))
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    view = memoryview(weight.numpy())
    made = onnx.numpy_helper.to_array(model.to_proto().graph.initializer[0])
    assert made.tobytes() == view.tobytes()


def test_digest_depends_on_weights_and_not_on_lineage() -> None:
    one, same, other = (Model.from_proto(tiny(s)) for s in (1, 1, 2))
    assert one.digest == same.digest != other.digest
    assert Model(one.ir, (Step("x", {}, "d"),)).digest == one.digest


def test_digest_survives_the_file(tmp_path: Path) -> None:
    model = Model.from_proto(tiny())
    assert Model.load(model.save(tmp_path / "m.onnx")).digest == model.digest


def test_a_clone_may_be_changed() -> None:
    model = Model.from_proto(tiny())
    before = model.to_bytes()
    copy = model.clone()
    copy.graph.initializers["w"].const_value = ir.tensor(np.zeros((4, 3), np.float32), name="w")
    assert model.to_bytes() == before != copy.to_bytes()


def test_large_weights_go_to_a_separate_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "EXTERNAL_DATA_BYTES", 10)
    model = Model.from_proto(tiny(3, width=100))
    path = model.save(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx.data").stat().st_size >= 1600
    again = Model.load(path)
    np.testing.assert_array_equal(
        again.graph.initializers["w"].const_value.numpy(), np.full((4, 100), 3, np.float32)
    )
    # Saving over the files that the model still maps must not destroy them.
    again.save(path)
    assert Model.load(path).digest == model.digest


def external(path: Path, location: str, length: int = 48) -> None:
    proto = tiny()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())


def secret_outside(path: Path) -> None:
    (path.parent.parent / "secret").write_bytes(b"s" * 48)
    external(path, "../secret")


def link_outside(path: Path) -> None:
    (path.parent.parent / "secret").write_bytes(b"s" * 48)
    (path.parent / "inside").symlink_to(path.parent.parent / "secret")
    external(path, "inside")


def short(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(b"1234")
    external(path, "w.bin")


BAD = {
    "missing": (lambda p: None, "no such file"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "text": (lambda p: p.write_text("import torch"), "is not an ONNX"),
    "empty": (lambda p: p.write_bytes(b""), "is not an ONNX"),
    "truncated": (lambda p: p.write_bytes(tiny().SerializeToString()[:-30]), "truncated"),
    "external missing": (lambda p: external(p, "w.bin"), "is missing"),
    "external outside": (secret_outside, "outside of the model's folder"),
    "external absolute": (lambda p: external(p, "/etc/hostname"), "outside"),
    "external by link": (link_outside, "outside of the model's folder"),
    "external short": (short, "truncated"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "m.onnx"
    make(path)
    with pytest.raises(ModelError, match=message):
        Model.load(path)


def test_a_folder_that_cannot_be_written_is_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        Model.from_proto(tiny()).save(tmp_path / "file" / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.from_proto(tiny())
    path = model.save(tmp_path / "m.onnx")
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"No space left.*Free some space"):
        Model.from_proto(tiny(2)).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_external_weights_of_a_small_model_become_part_of_it(tmp_path: Path) -> None:
    """Its bytes contain them, its digest depends on them, onnxruntime loads it from memory."""
    inside = Model.from_proto(tiny(width=64))
    beside = Model.load(inside.spill(tmp_path))
    assert beside.to_bytes() == inside.to_bytes()
    assert beside.digest == inside.digest
    build_session(beside)


def test_weights_in_constant_nodes_are_counted() -> None:
    model = model_of(
        """(float[N,3] x) => (float[N,3] y) {
          w = Constant <value = float[3,3] {1,2,3,4,5,6,7,8,9}> ()  y = MatMul (x, w)
        }"""
    )
    assert model.weight_bytes == 36
