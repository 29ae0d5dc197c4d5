"""Changes of a model that keep its structure, each by a few random numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from .seeds import EXTERNAL, SEEDS, move_weights_outside

SECRET = b"SECRET-OF-THE-USER-" * 8
NUMBERS = [0, 1, -1, 2, 3, 7, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 62), -(1 << 62)]
NAMES = [
    "",
    " ",
    "x",
    "y",
    "w",
    "a\nb",
    "\x1b[2J",
    '{"a": 1}',
    "a/b/../c",
    "é" * 40,
    "n" * 5000,
    "\u202ex",
]
OPS = [
    "Relu",
    "MatMul",
    "Gemm",
    "Conv",
    "Add",
    "Mul",
    "Softmax",
    "Reshape",
    "Transpose",
    "Concat",
    "Loop",
    "If",
    "Scan",
    "Nonsense",
    "Identity",
    "ConstantOfShape",
    "Expand",
    "Tile",
    "LSTM",
    "GRU",
    "Cast",
    "Gather",
    "Slice",
    "Pad",
    "Resize",
    "Split",
    "Dropout",
    "Where",
    "NonZero",
    "QuantizeLinear",
    "DequantizeLinear",
    "BatchNormalization",
    "ReduceMean",
    "SequenceConstruct",
    "Range",
    "TopK",
]
Rng = np.random.Generator


def pick(rng: Rng, items):
    items = list(items)
    return items[int(rng.integers(len(items)))] if items else None


def graphs(proto: onnx.ModelProto) -> list[onnx.GraphProto]:
    found = [proto.graph]
    for graph in found:
        for node in graph.node:
            found += [a.g for a in node.attribute if a.HasField("g")]
    return found


def a_graph(rng, proto):
    return pick(rng, graphs(proto))


def a_node(rng, proto):
    return pick(rng, a_graph(rng, proto).node) or pick(rng, proto.graph.node) or onnx.NodeProto()


def a_name(rng, proto):
    known = [n for g in graphs(proto) for node in g.node for n in (*node.input, *node.output)]
    return pick(rng, [*known, *NAMES])


def number(rng) -> int:
    return int(pick(rng, NUMBERS))


def delete_node(rng, proto):
    graph = a_graph(rng, proto)
    if graph.node:
        del graph.node[int(rng.integers(len(graph.node)))]


def copy_node(rng, proto):
    graph = a_graph(rng, proto)
    node = pick(rng, graph.node)
    if node is not None:
        again = graph.node.add()
        again.CopyFrom(node)
        if rng.random() < 0.7:
            for index, name in enumerate(again.output):
                again.output[index] = f"{name}_again"


def shuffle_nodes(rng, proto):
    graph = a_graph(rng, proto)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node]
    del graph.node[:]
    graph.node.extend(nodes[i] for i in rng.permutation(len(nodes)))


def change_operator(rng, proto):
    a_node(rng, proto).op_type = str(pick(rng, OPS))


def rewire(rng, proto):
    node = a_node(rng, proto)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = str(a_name(rng, proto))


def change_arity(rng, proto):
    node = a_node(rng, proto)
    end = node.input if rng.random() < 0.6 else node.output
    if rng.random() < 0.5 and end:
        del end[int(rng.integers(len(end)))]
    else:
        end.append(str(a_name(rng, proto)))


def change_attribute(rng, proto):
    node = a_node(rng, proto)
    attribute = pick(rng, node.attribute)
    if attribute is None:
        node.attribute.append(helper.make_attribute(str(pick(rng, ["axis", "to", "bogus"])), 1))
    elif rng.random() < 0.15:
        node.attribute.remove(attribute)
    elif attribute.type == AttributeProto.INT:
        attribute.i = number(rng)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = float(pick(rng, [0, -1, 1e38, float("nan"), float("inf")]))
    elif attribute.type == AttributeProto.INTS:
        attribute.ints[:] = [number(rng) for _ in range(int(rng.integers(0, 6)))]
    elif attribute.type == AttributeProto.STRING:
        attribute.s = str(pick(rng, NAMES)).encode()
    else:
        attribute.type = int(rng.integers(0, 15))


def a_weight(rng, proto):
    weights = [t for g in graphs(proto) for t in g.initializer]
    return pick(rng, weights) or TensorProto()


def change_dims(rng, proto):
    weight = a_weight(rng, proto)
    if weight.dims and rng.random() < 0.8:
        weight.dims[int(rng.integers(len(weight.dims)))] = number(rng)
    else:
        weight.dims.append(number(rng))


def swap_dims(rng, proto):
    weight = a_weight(rng, proto)
    weight.dims[:] = list(weight.dims)[::-1]


def change_type(rng, proto):
    a_weight(rng, proto).data_type = int(rng.integers(0, 30))


def change_bytes(rng, proto):
    weight = a_weight(rng, proto)
    raw = bytearray(weight.raw_data)
    kind = int(rng.integers(3))
    if kind == 0:
        weight.raw_data = bytes(raw[: len(raw) // 2])
    elif kind == 1:
        weight.raw_data = bytes(raw) + bytes(4)
    elif len(raw) >= 4 and weight.data_type == TensorProto.FLOAT:
        values = np.frombuffer(bytes(raw[: len(raw) // 4 * 4]), np.float32).copy()
        values[rng.integers(values.size)] = pick(rng, [np.nan, np.inf, -np.inf, 3e38, 1e-45])
        weight.raw_data = values.tobytes()


def rename_weight(rng, proto):
    a_weight(rng, proto).name = str(a_name(rng, proto))


def an_interface(rng, proto):
    return pick(rng, [*proto.graph.input, *proto.graph.output])


def change_shape(rng, proto):
    value = an_interface(rng, proto)
    if value is None:
        return
    dims = value.type.tensor_type.shape.dim
    kind = int(rng.integers(5))
    if kind == 0:
        value.type.tensor_type.ClearField("shape")
    elif kind == 1:
        dims.add().dim_value = number(rng)
    elif dims:
        dim = dims[int(rng.integers(len(dims)))]
        if kind == 2:
            dim.dim_param = str(pick(rng, NAMES))
        else:
            dim.dim_value = number(rng)


def change_interface(rng, proto):
    value = an_interface(rng, proto)
    if value is None:
        return
    kind = int(rng.integers(4))
    if kind == 0:
        value.type.tensor_type.elem_type = int(rng.integers(0, 25))
    elif kind == 1:
        value.name = str(a_name(rng, proto))
    elif kind == 2:
        side = proto.graph.input if rng.random() < 0.5 else proto.graph.output
        side.add().CopyFrom(value)
    else:
        side = proto.graph.output if rng.random() < 0.5 else proto.graph.input
        if side:
            del side[int(rng.integers(len(side)))]


def change_versions(rng, proto):
    kind = int(rng.integers(4))
    if kind == 0:
        proto.ir_version = int(pick(rng, [0, 1, 3, 4, 99, 1 << 40]))
    elif kind == 1:
        del proto.opset_import[:]
    elif kind == 2 and proto.opset_import:
        proto.opset_import[0].version = int(pick(rng, [0, 1, 6, 7, 9, 11, 13, 21, 23, 99, -1]))
    else:
        proto.opset_import.add(domain=str(pick(rng, ["com.example", "ai.onnx.ml", ""])), version=1)


def change_name(rng, proto):
    kind = int(rng.integers(3))
    text = str(pick(rng, NAMES))
    if kind == 0:
        a_node(rng, proto).name = text
    elif kind == 1:
        a_node(rng, proto).domain = str(
            pick(rng, ["com.example", "com.microsoft", "ai.onnx", text])
        )
    else:
        old = a_name(rng, proto)
        for graph in graphs(proto):
            for value in (*graph.input, *graph.output, *graph.initializer):
                value.name = text if value.name == old else value.name
            for node in graph.node:
                node.input[:] = [text if n == old else n for n in node.input]
                node.output[:] = [text if n == old else n for n in node.output]


def add_bomb(rng, proto):
    """Add constants that grow, or a loop that does not end, in front of the first output."""
    graph = proto.graph
    power = int(pick(rng, [8, 20, 28, 33, 40, 62]))
    kind = str(pick(rng, ["ConstantOfShape", "Expand", "Tile", "Concat", "Loop"]))
    one = numpy_helper.from_array(np.ones(1, np.float32), "bomb_one")
    size = numpy_helper.from_array(np.array([1 << power]), "bomb_size")
    graph.initializer.extend([one, size])
    if kind == "ConstantOfShape":
        graph.node.insert(0, helper.make_node(kind, ["bomb_size"], ["bomb"]))
    elif kind in {"Expand", "Tile"}:
        graph.node.insert(0, helper.make_node(kind, ["bomb_one", "bomb_size"], ["bomb"]))
    elif kind == "Concat":
        names = ["bomb_one", *(f"bomb_{i}" for i in range(power - 1)), "bomb"]
        for index in range(power):
            pair = [names[index]] * 2
            graph.node.insert(index, helper.make_node("Concat", pair, [names[index + 1]], axis=0))
    else:
        body = onnx.parser.parse_graph(
            "b (int64 i, bool c, float[1] s) => (bool d, float[1] t) "
            "{ d = Identity(c) t = Add(s,s) }"
        )
        trips = numpy_helper.from_array(np.array(1 << power), "bomb_trips")
        graph.initializer.append(trips)
        node = helper.make_node("Loop", ["bomb_trips", "", "bomb_one"], ["bomb"], body=body)
        graph.node.insert(0, node)
    graph.node.append(helper.make_node("ReduceMax", ["bomb"], ["bomb_max"], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("bomb_max", TensorProto.FLOAT, None))


def list_weights(rng, proto):
    """Make weights inputs, as old files do."""
    for weight in proto.graph.initializer:
        known = helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        proto.graph.input.append(known)


def make_sparse(rng, proto):
    weight = a_weight(rng, proto)
    if not weight.name or weight.data_type != TensorProto.FLOAT or not weight.raw_data:
        return
    places = numpy_helper.from_array(np.array([0, number(rng)]), f"{weight.name}_indices")
    values = numpy_helper.from_array(np.ones(2, np.float32), weight.name)
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.CopyFrom(values)
    sparse.indices.CopyFrom(places)
    sparse.dims.extend(weight.dims)
    for index, other in enumerate(proto.graph.initializer):
        if other.name == weight.name:
            del proto.graph.initializer[index]
            break


def metadata(rng, proto):
    proto.metadata_props.add(
        key=str(pick(rng, ["trimtab.lineage", "trimtab.store", "trimtab.session", "x"])),
        value=str(pick(rng, ["sparse", "[1]", '[{"pass": 1}]', "{" * 50, "\x1b[2J"])),
    )


def wrap_in_function(rng, proto):
    node = pick(rng, proto.graph.node)
    if node is None or node.attribute:
        return
    inner = helper.make_node(node.op_type, list(node.input), list(node.output))
    imports = [helper.make_opsetid("", 17)]
    given = list(dict.fromkeys(filter(None, node.input)))
    function = helper.make_function("local", "F", given, list(node.output), [inner], imports)
    proto.functions.append(function)
    proto.opset_import.add(domain="local", version=1)
    node.domain, node.op_type = "local", "F"
    node.input[:] = given


MUTATIONS: list[Callable] = [
    delete_node, copy_node, shuffle_nodes, change_operator, rewire, change_arity, change_attribute,
    change_dims, swap_dims, change_type, change_bytes, rename_weight, change_shape,
    change_interface, change_versions, change_name, add_bomb, list_weights, make_sparse, metadata,
    wrap_in_function,
]  # fmt: skip


def change_external(rng, proto, folder: Path) -> None:
    """Point external data elsewhere: outside, into the middle, behind the end."""
    tensors = [t for t in proto.graph.initializer if t.external_data]
    tensor = pick(rng, tensors)
    if tensor is None:
        return
    entries = {e.key: e for e in tensor.external_data}
    kind = int(rng.integers(6))
    if kind == 0:
        outside = ["../secret.bin", str(folder.parent / "secret.bin"), "sub/../../secret.bin"]
        entries["location"].value = str(pick(rng, outside))
    elif kind == 1:
        (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
        entries["location"].value = "link.bin"
    elif kind == 2:
        entries["location"].value = str(pick(rng, ["", ".", "gone.bin", "secret.bin", "a\0b"]))
    elif kind == 3:
        entries["offset"].value = str(pick(rng, [-1, 1, 4096, 1 << 40, "abc", "1e3", ""]))
    elif kind == 4:
        entries["length"].value = str(pick(rng, [-1, 0, 3, 1 << 40, "abc"]))
    else:
        raw = (folder / EXTERNAL).read_bytes()
        (folder / EXTERNAL).write_bytes(raw[: int(rng.integers(len(raw)))])


def write_mutant(number_: int, folder: Path) -> str:
    """Write mutant `number_` as `m.onnx` into the folder; return what was done."""
    rng = np.random.default_rng(number_)
    name = list(SEEDS)[number_ % len(SEEDS)]
    proto = SEEDS[name]()
    done = [name]
    if name == "external":
        move_weights_outside(proto, folder)
        if rng.random() < 0.7:
            change_external(rng, proto, folder)
            done.append("change_external")
    for _ in range(int(rng.integers(1, 4))):
        mutation = pick(rng, MUTATIONS)
        done.append(mutation.__name__)
        try:
            mutation(rng, proto)
        except (ValueError, TypeError, OverflowError):  # the message cannot hold it
            done.append("(not done)")
    data = proto.SerializeToString()
    if rng.random() < 0.08:
        done.append("flip")
        flipped = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            flipped[place] ^= 1 << int(rng.integers(8))
        data = bytes(flipped)
    (folder / "m.onnx").write_bytes(data)
    return " ".join(done)
