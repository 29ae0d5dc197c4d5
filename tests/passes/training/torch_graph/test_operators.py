"""Each operator of the executor against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from torch_cases import BOOL, FLOAT, INT64, agrees, floats, ints, one_node, same

from trimtab.core.errors import ModelError
from trimtab.passes.training.torch_graph import to_module
from trimtab.passes.training.torch_graph.operators.table import supported_operators

X = floats(2, 3, 5, 6)
POSITIVE = floats(2, 3, 5, 6, low=0.1)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_knows_the_operators_of_vision_and_language_models() -> None:
    assert len(supported_operators()) >= 75


@pytest.mark.parametrize(
    ("op", "opset"),
    [(op, 18) for op in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Softsign", "Mish",
     "Erf", "Neg", "Abs", "Exp", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Identity",
     "LeakyRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "HardSigmoid", "Flatten", "Transpose",
     "Softmax", "LogSoftmax", "GlobalAveragePool", "GlobalMaxPool", "LpNormalization", "Dropout")]
    + [(op, 9) for op in ("Softmax", "LogSoftmax", "Dropout", "Flatten", "Relu", "Elu")],
)  # fmt: skip
def test_functions_of_one_tensor(op: str, opset: int) -> None:
    same(op, {"x": X}, opset=opset)


@pytest.mark.parametrize("op", ["Sqrt", "Reciprocal", "Log"])
def test_functions_of_a_positive_tensor(op: str) -> None:
    same(op, {"x": POSITIVE})


@pytest.mark.parametrize(
    ("op", "attributes", "opset"),
    [
        ("LeakyRelu", {"alpha": 0.3}, 18),
        ("Elu", {"alpha": 0.3}, 18),
        ("Celu", {"alpha": 0.3}, 18),
        ("Selu", {"alpha": 1.2, "gamma": 0.9}, 18),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, 18),
        ("Gelu", {"approximate": "none"}, 20),
        ("Gelu", {"approximate": "tanh"}, 20),
        ("Clip", {"min": -0.5, "max": 0.5}, 9),
        ("Clip", {"max": 0.5}, 9),
        ("Softmax", {"axis": 1}, 13),
        ("Softmax", {"axis": 2}, 11),
        ("LogSoftmax", {"axis": -2}, 13),
        ("Flatten", {"axis": 0}, 18),
        ("Flatten", {"axis": -2}, 18),
        ("Transpose", {"perm": [2, 0, 3, 1]}, 18),
        ("LpNormalization", {"axis": 1, "p": 1}, 18),
        ("LRN", {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.5}, 18),
        ("LRN", {"size": 5, "alpha": 0.1}, 7),
        ("Cast", {"to": INT64}, 18),
        ("ArgMax", {"axis": 1, "keepdims": 0}, 18),
        ("ArgMin", {"axis": -1}, 18),
    ],
)
def test_attributes_of_functions_of_one_tensor(op: str, attributes: dict, opset: int) -> None:
    kind = INT64 if op in {"Cast", "ArgMax", "ArgMin"} else FLOAT
    same(op, {"x": 2 * X}, opset=opset, kind=kind, **attributes)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (6,), (3, 1, 1), (1, 5, 1), ()])
def test_two_operands_broadcast(op: str, shape: tuple[int, ...]) -> None:
    same(op, {"a": POSITIVE, "b": floats(*shape, seed=1, low=0.5)})
    same(op, {"a": POSITIVE}, {"b": floats(*shape, seed=1, low=0.5)})


@pytest.mark.parametrize("op", ["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"])
def test_comparisons(op: str) -> None:
    a, b = np.round(X), np.round(floats(2, 3, 5, 6, seed=1))
    same(op, {"a": a, "b": b}, kind=BOOL)


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(op: str) -> None:
    same(op, {"a": X > 0, "b": floats(5, 6) > 0})
    same("Not", {"a": X > 0})


def test_integer_division_and_remainder() -> None:
    a, b = ints(-7, 7, -8, 9), ints(2, -2, 3, -4)
    same("Div", {"a": a, "b": b})
    same("Mod", {"a": a, "b": b})
    same("Mod", {"a": a.astype(np.float32), "b": b.astype(np.float32)}, fmod=1)


def test_nan_is_found_and_types_follow_another_tensor() -> None:
    same("IsNaN", {"x": np.where(X > 1, np.float32(np.nan), X)}, kind=BOOL)
    same("CastLike", {"x": 3 * X, "like": ints(1)}, kind=INT64)


def test_where_and_three_operands() -> None:
    same("Where", {"c": X > 0, "a": X, "b": floats(6)}, kind=FLOAT)
    same("Max", {"a": X, "b": floats(6), "c": floats(5, 1)})


def test_prelu() -> None:
    same("PRelu", {"x": X}, {"slope": floats(3, 1, 1)})
    same("PRelu", {"x": X}, {"slope": floats(1)})


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"lo": np.float32(-0.3), "hi": np.float32(0.4)}, ["x", "lo", "hi"]),
        ({"hi": np.float32(0.4)}, ["x", "", "hi"]),
        ({"lo": np.float32(0.1)}, ["x", "lo"]),
        ({}, ["x"]),
    ],
)
def test_clip_with_limits_left_out(given: dict, names: list[str]) -> None:
    same("Clip", {"x": X}, {n: np.array(v) for n, v in given.items()}, inputs=names)


@pytest.mark.parametrize("reads", [{"transA": 1}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}])
@pytest.mark.parametrize("shape", [(5,), (4, 1), (4, 5), (1,), ()])
def test_gemm(reads: dict, shape: tuple[int, ...]) -> None:
    a = floats(3, 4) if "transA" in reads else floats(4, 3)
    b = floats(5, 3) if "transB" in reads else floats(3, 5)
    same("Gemm", {"a": a}, {"b": b, "c": floats(*shape)}, **reads)
    same("Gemm", {"a": a}, {"b": b}, opset=11, **reads)


@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 3), (3, 5)), ((2, 4, 3), (3, 5)), ((3,), (3, 5)), ((2, 1, 4, 3), (3, 3, 5))],
)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    same("MatMul", {"a": floats(*left)}, {"b": floats(*right)})


def test_einsum() -> None:
    a, b = floats(2, 3, 4), floats(2, 4, 5)
    same("Einsum", {"a": a, "b": b}, equation="bij,bjk->bik")


def test_batch_normalization() -> None:
    weights = {"s": floats(3), "b": floats(3), "m": floats(3), "v": floats(3, low=0.5)}
    same("BatchNormalization", {"x": X}, weights, epsilon=1e-3)
    same("BatchNormalization", {"x": X}, weights, opset=7)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization(axis: int) -> None:
    shape = X.shape[axis:]
    same("LayerNormalization", {"x": X}, {"s": floats(*shape), "b": floats(*shape)}, axis=axis)
    same("LayerNormalization", {"x": X}, {"s": floats(*shape)}, axis=axis, epsilon=1e-2)


def test_other_normalizations() -> None:
    vectors = {"s": floats(3), "b": floats(3)}
    same("InstanceNormalization", {"x": X}, vectors)
    wide = {"s": floats(2), "b": floats(2)}
    same("GroupNormalization", {"x": floats(2, 6, 4)}, wide, num_groups=2, opset=18)
    six = {"s": floats(6), "b": floats(6)}
    same("GroupNormalization", {"x": floats(2, 6, 4)}, six, num_groups=3, opset=21)
    same("RMSNormalization", {"x": X}, {"s": floats(6)}, opset=23)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1",
    "ReduceL2", "ReduceProd", "ReduceSumSquare", "ReduceLogSumExp"])  # fmt: skip
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions(op: str, keep: int) -> None:
    same(op, {"x": X}, {"axes": ints(-1, 1)}, keepdims=keep)
    same(op, {"x": X}, {}, keepdims=keep)
    if op != "ReduceSum":
        same(op, {"x": X}, axes=[2], opset=11, keepdims=keep)


def test_a_reduction_over_no_axes_may_be_none() -> None:
    same("ReduceSum", {"x": X}, {"axes": ints()}, noop_with_empty_axes=1)


@pytest.mark.parametrize("shape", [(0, -1), (2, 15, -1), (-1,), (0, 0, 30)])
def test_reshape(shape: tuple[int, ...]) -> None:
    same("Reshape", {"x": X}, {"shape": ints(*shape)})
    same("Reshape", {"x": floats(0, 3)}, {"shape": ints(3, 0)}, allowzero=1)


def test_axes_come_and_go() -> None:
    y = floats(1, 3, 1, 4)
    same("Squeeze", {"x": y}, {"axes": ints(0, -2)})
    same("Squeeze", {"x": y}, {})
    same("Squeeze", {"x": y}, axes=[2], opset=11)
    same("Unsqueeze", {"x": X}, {"axes": ints(0, -1)})
    same("Unsqueeze", {"x": X}, axes=[3, 0], opset=11)
    same("Expand", {"x": y}, {"shape": ints(2, 1, 5, 1)})
    same("Tile", {"x": y}, {"repeats": ints(2, 1, 3, 2)})


def test_joins_and_splits() -> None:
    same("Concat", {"a": X, "b": floats(2, 4, 5, 6)}, axis=1)
    same("Concat", {"a": X}, {"b": X}, axis=-1)
    same("Split", {"x": X}, {"split": ints(1, 5)}, axis=-1, outputs=2)
    same("Split", {"x": X}, axis=3, outputs=3, opset=11)
    same("Split", {"x": X}, axis=3, outputs=2, opset=11, split=[2, 4])
    same("Split", {"x": X}, axis=2, outputs=2, num_outputs=2)


@pytest.mark.parametrize(
    "index", [ints(0, -1, 1), ints(-1).reshape(()), ints(0, 1, 2, 0).reshape(2, 2)]
)
@pytest.mark.parametrize("axis", [1, -2])
def test_gather(index: np.ndarray, axis: int) -> None:
    same("Gather", {"x": X}, {"i": index}, axis=axis)


def test_other_ways_to_pick() -> None:
    same("GatherElements", {"x": floats(3, 4)}, {"i": ints(0, -1, 2, 1).reshape(2, 2)}, axis=1)
    same("GatherND", {"x": X}, {"i": ints(0, 1, -1, 2).reshape(2, 2)})
    same("Trilu", {"x": X}, {"k": ints(1).reshape(())}, upper=0)
    same("Trilu", {"x": X}, {})
    same("CumSum", {"x": X}, {"axis": ints(2).reshape(())}, reverse=1, exclusive=1)


def test_blocks_of_pixels() -> None:
    y = floats(2, 8, 3, 4)
    same("DepthToSpace", {"x": y}, blocksize=2)
    same("DepthToSpace", {"x": y}, blocksize=2, mode="CRD")
    same("SpaceToDepth", {"x": floats(2, 3, 4, 6)}, blocksize=2)


def test_values() -> None:
    same("Shape", {"x": X}, kind=INT64)
    same("Shape", {"x": X}, kind=INT64, start=1, end=-1)
    same("Size", {"x": X}, kind=INT64)
    same("Range", {"a": ints(2).reshape(()), "b": ints(9).reshape(()), "c": ints(3).reshape(())})
    same("ConstantOfShape", {"s": ints(2, 3)}, kind=FLOAT)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_attention(causal: int, softcap: float) -> None:
    q, k, v = floats(2, 4, 16), floats(2, 4, 8, seed=1), floats(2, 4, 8, seed=2)
    attributes = {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": causal, "softcap": softcap}
    same("Attention", {"q": q, "k": k, "v": v}, opset=23, **attributes)
    mask = {"m": floats(4, 4)}
    heads = {"q": floats(2, 3, 4, 5), "k": floats(2, 3, 4, 5), "v": floats(2, 3, 4, 6)}
    same("Attention", heads, mask, opset=23, scale=0.3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("opset", [13, 21])
def test_rounding_to_integers_and_back(dtype: type, opset: int) -> None:
    scale, zero = np.float32(0.03), np.array(3, dtype)
    one = {"s": np.array(scale), "z": zero}
    kind = one_node("Relu", {"x": zero.reshape(1)}).outputs[0].dtype
    same("QuantizeLinear", {"x": 3 * X}, one, opset=opset, kind=int(kind))
    each = {"s": floats(3, low=0.01), "z": np.array([0, 1, 2], dtype)}
    same("QuantizeLinear", {"x": 3 * X}, each, opset=opset, kind=int(kind), axis=1)
    q = np.random.default_rng(0).integers(0, 100, X.shape).astype(dtype)
    same("DequantizeLinear", {"x": q}, each, opset=opset, kind=FLOAT, axis=1)
    same("DequantizeLinear", {"x": q}, one, opset=opset, kind=FLOAT)


def test_blocks_that_share_a_step() -> None:
    q = np.random.default_rng(0).integers(-100, 100, (4, 6)).astype(np.int8)
    steps = {"s": floats(4, 2, low=0.1)}
    same("DequantizeLinear", {"x": q}, steps, opset=21, kind=FLOAT, axis=1, block_size=3)


def test_unknown_operators_are_named_all_at_once() -> None:
    from graphs import model_of

    model = model_of("""(float[2,4] x) => (float[n] y) {
        a = NonZero (x)
        b = Cast <to=1> (a)
        c = Det (b)
        y = Unique (c)
    }""")
    with pytest.raises(ModelError, match=r"NonZero.*Det.*Unique"):
        to_module(model)


def test_a_variant_that_cannot_be_trained_is_named() -> None:
    model = one_node("MaxPool", {"x": X}, outputs=2, kernel_shape=[2, 2])
    with pytest.raises(ModelError, match="indices"):
        to_module(model)


def test_an_old_operator_set_is_refused_with_a_hint() -> None:
    with pytest.raises(ModelError, match="simplify"):
        to_module(one_node("Relu", {"x": X}, opset=6))


def test_sizes_are_computed_on_the_fly() -> None:
    from graphs import model_of

    model = model_of("""(float[batch,3,4] x) => (float[batch,12] y)
        <int64[1] one = {-1}, int64 zero = {0}, int64[1] axis = {0}> {
            s = Shape (x)
            n = Gather (s, zero)
            m = Unsqueeze (n, axis)
            t = Concat <axis=0> (m, one)
            y = Reshape (x, t)
        }""")
    for batch in (1, 5):
        agrees(model, {"x": floats(batch, 3, 4)})
