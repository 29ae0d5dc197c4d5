"""Passes that remove or train weights, on files of float16, of double, of integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import model_of, weights_of

from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.passes import (
    ClusterWeights,
    CompressWeights,
    Finetune,
    Half,
    PruneChannels,
    PruneMagnitude,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
)
from trimtab.passes.quantization.dequantize import Dequantize

RNG = np.random.default_rng(0)
#: Half of the units follow the others, so that half of the channels can go at no loss.
W0 = np.repeat(RNG.standard_normal((16, 32)), 2, axis=1)
W1 = RNG.standard_normal((64, 8))


def twins(kind: str = "float") -> Model:
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
    text = f"""({kind}[N,16] x) => ({kind}[N,8] y) <{kind}[16,64] w0, {kind}[64,8] w1> {{
        [first] a = MatMul (x, w0) r = Relu (a) [last] y = MatMul (r, w1) }}"""
    return model_of(text, w0=W0.astype(dtype), w1=W1.astype(dtype))


def rows(model: Model) -> Dataset:
    dtype = model.inputs[0].dtype.numpy()
    x = np.random.default_rng(1).standard_normal((64, 16))
    return Dataset.of_arrays({"x": x.astype(dtype)})


def lost(before: Model, after: Model) -> float:
    """Return the squared error relative to the answers."""
    feeds = next(iter(rows(before).sized(64))).feeds
    a, b = (run(build_session(m), feeds)["y"].astype(np.float64) for m in (before, after))
    return float(np.square(a - b).sum() / np.square(a).sum())


def kinds(model: Model) -> set[ir.DataType]:
    return {v.dtype for v in model.graph.initializers.values() if len(v.shape) > 1}


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_channels_of_other_floats_are_pruned_as_well_as_those_of_float32(kind: str) -> None:
    halved = {
        k: PruneChannels(0.5, block=1, data=rows(twins(k)))(twins(k)) for k in ("float", kind)
    }
    after = halved[kind]
    assert lost(twins("float"), halved["float"]) < 1e-5
    assert lost(twins(kind), after) < 1e-5
    assert after.inputs == twins(kind).inputs
    assert {v.shape for v in weights_of(after).values()} == {(16, 32), (32, 8)}
    assert set(weights_of(after)) == {"w0", "w1"}
    assert kinds(after) == {ir.DataType.FLOAT16 if kind == "float16" else ir.DataType.FLOAT}
    if kind == "float16":
        assert [n.op_type for n in after.graph] == ["MatMul", "Relu", "MatMul"]


def test_islands_of_float32_in_a_half_model_stay() -> None:
    model = Half(exclude=("first",))(twins())
    after = PruneChannels(0.5, block=1, data=rows(model))(model)
    assert lost(twins(), after) < 1e-5
    assert kinds(after) == {ir.DataType.FLOAT, ir.DataType.FLOAT16}


def test_float16_that_nothing_is_pruned_of_stays_the_file_that_it_is() -> None:
    model = model_of("(float16[N,4] x) => (float16[N,4] y) <float16[4,4] w> { y = MatMul (x, w) }")
    after = PruneChannels(0.5)(model)
    assert [n.op_type for n in after.graph] == ["MatMul"]
    assert kinds(after) == {ir.DataType.FLOAT16}


def test_float16_is_trained_in_float32_and_stays_float16() -> None:
    pytest.importorskip("torch")
    student = twins("float16")
    student.graph.initializers["w1"].const_value = ir.tensor((W1 * 0.9).astype(np.float16))
    train = Finetune(data=rows(student), teacher=twins("float16"), steps=60, learning_rate=0.01)
    after = train(student)
    assert lost(twins("float16"), after) < 0.5 * lost(twins("float16"), student)
    assert kinds(after) == {ir.DataType.FLOAT16}


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_weights_of_other_floats_are_stored_in_8_bits(kind: str) -> None:
    after = CompressWeights(data=rows(twins(kind)))(twins(kind))
    assert after.weight_bytes < 0.7 * twins("float16").weight_bytes
    assert lost(twins(kind), after) < 1e-3


def test_double_becomes_float16() -> None:
    after = Half()(twins("double"))
    assert kinds(after) == {ir.DataType.FLOAT16}
    assert lost(twins("double"), after) < 1e-5


@pytest.mark.parametrize("store", ["int8", "int4", "float16"])
def test_refitted_weights_are_stored_in_as_few_bits_as_before(store: str) -> None:
    model = CompressWeights(store=store, wide_share=0)(twins())
    after = PruneChannels(0.5, block=1, data=rows(model))(model)
    sizes = [sum(a.nbytes for n, a in weights_of(m).items()) for m in (model, after)]
    assert sizes[1] < 0.75 * sizes[0]
    assert lost(model, after) < {"int8": 1e-3, "int4": 0.1, "float16": 1e-5}[store]


INTEGERS = {
    "pairs": QuantizeStatic(data=rows(twins())),
    "dynamic": QuantizeDynamic(),
    "4 bits": QuantizeWeights(block=16),
}


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("make", [PruneChannels, PruneMagnitude, ClusterWeights])
def test_files_of_integers_are_refused_with_what_to_do(kind: str, make: type) -> None:
    model = INTEGERS[kind](twins())
    with pytest.raises(InputError, match="is quantized already") as refused:
        make()(model)
    assert "the float model" in str(refused.value.hint)
    assert ("trimtab dequantize" in str(refused.value.hint)) == (kind == "pairs")


@pytest.mark.parametrize("kind", ["dynamic", "4 bits"])
def test_integers_that_have_no_gradient_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match="is quantized already"):
        Finetune(data=rows(twins()), steps=1)(INTEGERS[kind](twins()))


def test_channels_of_pairs_go_where_nothing_is_to_be_refitted() -> None:
    after = PruneChannels(0.5, block=1, repair="none")(INTEGERS["pairs"](twins()))
    assert after.lineage[-1].notes["channels"] == [64, 32]


def test_what_is_float_still_of_a_file_of_integers_is_pruned() -> None:
    model = QuantizeWeights(exclude=("first", "last"), block=16)(chain_of_products())
    after = PruneChannels(0.5, block=1, data=rows(model))(model)
    assert after.lineage[-1].notes["channels"] == [64, 32]


def chain_of_products() -> Model:
    text = """(float[N,16] x) => (float[N,8] y)
        <float[16,64] w0, float[64,8] w1, float[16,16] w2> {
        [inner] z = MatMul (x, w2) [first] a = MatMul (z, w0) r = Relu (a)
        [last] y = MatMul (r, w1) }"""
    w2 = np.eye(16, dtype=np.float32)
    return model_of(text, w0=W0.astype(np.float32), w1=W1.astype(np.float32), w2=w2)


def test_weights_of_blocks_become_float() -> None:
    integers = RNG.integers(-8, 8, (32, 8)).astype(np.int8)
    scales = RNG.uniform(0.01, 0.1, (2, 8)).astype(np.float32)
    model = model_of(
        """(float[N,32] x) => (float[N,8] y) <int8[32,8] w, float[2,8] s> {
            d = DequantizeLinear <axis=0, block_size=16> (w, s) y = MatMul (x, d) }""",
        opset=21,
        ir_version=10,
        w=integers,
        s=scales,
    )
    after = Dequantize()(model)
    floats = integers.astype(np.float32) * np.repeat(scales, 16, axis=0)
    (array,) = weights_of(after).values()
    np.testing.assert_array_equal(array, floats)
