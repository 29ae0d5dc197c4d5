"""Model files: their own faults are named, and nothing beside the model's folder is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.errors import ModelError
from trimtab.core.model import Model

OPSET = [helper.make_opsetid("", 17)]


def chain() -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("Relu", ["h"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


def save(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def dangling(m: onnx.ModelProto) -> None:
    m.graph.node[1].input[0] = "nobody"


def twice(m: onnx.ModelProto) -> None:
    m.graph.node[1].output[0] = "h"


def no_such_type(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].data_type = 99


def too_few_values(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].dims[0] = 1 << 40


def negative_size(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].dims[0] = -4


def no_output(m: onnx.ModelProto) -> None:
    m.graph.output[0].name = "gone"


def no_operator_set(m: onnx.ModelProto) -> None:
    del m.opset_import[:]


def no_outputs(m: onnx.ModelProto) -> None:
    del m.graph.output[:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dangling, "node 'relu' (Relu) reads 'nobody', which nothing makes"),
        (twice, "tensor 'h' is made twice, the second time by node 'relu'"),
        (no_such_type, "tensor 'w': its element type 99"),
        (too_few_values, "has 4398046511104 values, and 16 are stored"),
        (negative_size, "[-4, 4] is not a valid shape"),
        (no_output, "nothing makes its output 'gone'"),
        (no_outputs, "has no outputs"),
        (no_operator_set, "names no operator set"),
    ],
)
def test_a_fault_is_named(
    change: Callable[[onnx.ModelProto], None], words: str, tmp_path: Path
) -> None:
    proto = chain()
    change(proto)
    with pytest.raises(ModelError) as found:
        Model.load(save(proto, tmp_path))
    assert words in str(found.value)


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    """onnxruntime runs such a file, so it goes through."""
    proto = chain()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    model = Model.load(save(proto, tmp_path))
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu"]


def test_of_two_weights_of_one_name_the_last_counts(tmp_path: Path) -> None:
    proto = chain()
    proto.graph.initializer.append(numpy_helper.from_array(np.full((4, 4), 2.0, np.float32), "w"))
    weight = Model.load(save(proto, tmp_path)).graph.initializers["w"].const_value
    assert weight is not None
    assert (weight.numpy() == 2).all()


def external(location: str, **entries: object) -> TensorProto:
    tensor = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[8])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def with_function(tensor: TensorProto) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["k"], value=tensor),
        helper.make_node("Add", ["a", "k"], ["b"]),
    ]
    function = helper.make_function("local", "F", ["a"], ["b"], nodes, OPSET)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("F", ["x"], ["y"], domain="local")],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 8])],
        [value("y", TensorProto.FLOAT, ["n", 8])],
    )
    opsets = [*OPSET, helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)


def test_external_data_of_a_function_are_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of that name in the working folder is not read."""
    (tmp_path / "downloads").mkdir()
    (tmp_path / "data.bin").write_bytes(b"SECR" * 8)
    monkeypatch.chdir(tmp_path)
    path = save(with_function(external("data.bin", offset=0, length=32)), tmp_path / "downloads")
    with pytest.raises(ModelError, match=r"'data\.bin' is missing"):
        Model.load(path)
    (tmp_path / "downloads" / "data.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    data = Model.load(path).to_bytes()
    assert np.arange(8, dtype=np.float32).tobytes() in data
    assert b"SECR" not in data


@pytest.mark.parametrize(
    ("location", "entries", "words"),
    [
        ("../out.bin", {}, "outside of the model's folder"),
        ("link.bin", {}, "outside of the model's folder"),
        ("a\0b", {}, "is not the name of a file"),
        ("data.bin", {"offset": "abc"}, "is not a number of bytes"),
        ("data.bin", {"offset": -1}, "is not a number of bytes"),
        ("data.bin", {"length": 3}, "has 3 bytes, and its shape [8] needs 32"),
        ("data.bin", {"offset": 8}, "is truncated"),
        ("data.bin", {}, None),
    ],
)
def test_places_of_external_data(
    location: str, entries: dict[str, object], words: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out.bin").write_bytes(bytes(32))
    (folder / "data.bin").write_bytes(bytes(32))
    (folder / "link.bin").symlink_to(tmp_path / "out.bin")
    path = save(with_function(external(location, **entries)), folder)
    if words is None:
        Model.load(path)
        return
    with pytest.raises(ModelError) as found:
        Model.load(path)
    assert words in str(found.value)


def test_a_message_that_refers_to_a_file_has_no_folder() -> None:
    with pytest.raises(ModelError, match="is in another file"):
        Model.from_proto(with_function(external("data.bin")))


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(32))
    path = save(with_function(external("data.bin")), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"data.bin", b"\xff\xfeta.bin"))
    with pytest.raises(ModelError):
        Model.load(path)


def constants(*nodes: onnx.NodeProto, size: int) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            *nodes,
            helper.make_node("ReduceMax", ["big"], ["m"], keepdims=0),
            helper.make_node("Add", ["x", "m"], ["y"]),
        ],
        "g",
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        [
            numpy_helper.from_array(np.array([size]), "size"),
            numpy_helper.from_array(np.ones(1024, np.float32), "c0"),
        ],
    )
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


def doublings(count: int) -> list[onnx.NodeProto]:
    names = [*(f"c{i}" for i in range(count)), "big"]
    return [
        helper.make_node("Concat", [names[i]] * 2, [names[i + 1]], axis=0) for i in range(count)
    ]


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Concat"])
def test_constants_that_grow_without_measure_are_refused(kind: str, tmp_path: Path) -> None:
    """Found by shapes: nothing of that size is ever made."""
    nodes = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["size"], ["big"])],
        "Expand": [helper.make_node("Expand", ["c0", "two"], ["big"])],
        "Concat": doublings(28),
    }[kind]
    if kind == "Expand":
        shape = numpy_helper.from_array(np.array([1 << 30, 1024]))
        nodes.insert(0, helper.make_node("Constant", [], ["two"], value=shape))
    with pytest.raises(ModelError, match=rf"its constants take [0-9,]+ bytes.*\({kind}\)"):
        Model.load(save(constants(*nodes, size=1 << 38), tmp_path))


def test_constants_of_a_usual_size_are_kept(tmp_path: Path) -> None:
    Model.load(save(constants(*doublings(8), size=1), tmp_path))


def turning(turns: int | None, condition: str, *, go: bool | None = None) -> onnx.ModelProto:
    """Return a Loop of that many turns (None: no number), whose body makes this condition."""
    body = onnx.parser.parse_graph(
        "b (int64 i, bool c, float[1] s) => (bool d, float[1] t) "
        f"<int64 few = {{9}}> {{ d = {condition} t = Add(s, s) }}"
    )
    given = ["turns" if turns is not None else "", "go" if go is not None else "", "x"]
    value = helper.make_tensor_value_info
    weights = {"turns": turns, "go": go}
    graph = helper.make_graph(
        [helper.make_node("Loop", given, ["y"], "turning", body=body)],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array(a), n) for n, a in weights.items() if a is not None],
    )
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


@pytest.mark.parametrize("turns", [1 << 62, 1 << 28, None])
@pytest.mark.parametrize("condition", ["Identity(c)", "Constant<value = bool[1] {1}>()"])
@pytest.mark.parametrize("go", [True, None])
def test_a_loop_that_nothing_ends_is_refused(
    turns: int | None, condition: str, *, go: bool | None, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"node 'turning' is a Loop .* never becomes false"):
        Model.load(save(turning(turns, condition, go=go), tmp_path))


@pytest.mark.parametrize(
    ("turns", "condition", "go"),
    [(1000, "Identity(c)", True), ((1 << 63) - 1, "Less(i, few)", True), (1 << 62, "Not(c)", None)],
)
def test_a_loop_that_can_end_is_loaded(
    turns: int, condition: str, *, go: bool | None, tmp_path: Path
) -> None:
    """A `while` of PyTorch has the largest number of turns and a condition of its own."""
    Model.load(save(turning(turns, condition, go=go), tmp_path))
