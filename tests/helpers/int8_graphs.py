"""Small float graphs as ONNX text, one for each pattern that must come out fully int8."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'


def graph(text: str, *, seed: int = 0, **weights: tuple[int, ...] | NDArray[np.float32]) -> Model:
    """A model from a graph in ONNX text; weights by name, random where only a shape is given."""
    rng = np.random.default_rng(seed)
    proto = onnx.parser.parse_model(HEADER + re.sub(r"^\s+", "", text, flags=re.M))
    for name, value in weights.items():
        if isinstance(value, tuple):
            fan_in = max(int(np.prod(value[1:])), 1)
            array = (rng.standard_normal(value) / np.sqrt(fan_in)).astype(np.float32)
        else:
            array = np.asarray(value)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return Model.from_proto(proto, "test model")


def normal(model: Model, rows: int = 32, seed: int = 1, **dims: int) -> Dataset:
    """Normal random data for a model, symbolic dimensions from `dims`."""
    rng = np.random.default_rng(seed)
    feeds: Mapping[str, NDArray[np.float32]] = {
        spec.name: rng.standard_normal(
            [rows, *(d if isinstance(d, int) else dims[str(d)] for d in (spec.shape or ())[1:])]
        ).astype(np.float32)
        for spec in model.inputs
    }
    return Dataset.of_arrays(feeds)


def error(reference: Model, model: Model, data: Dataset) -> float:
    """Mean squared error of the first output, summed over the batches."""
    total = 0.0
    for batch in data:
        a, b = (next(iter(run(build_session(m), batch.feeds).values())) for m in (reference, model))
        total += float(np.square(a - b).mean())
    return total


def chain() -> Model:
    return graph(
        """g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          b = Relu (a)
          y = Conv <pads = [1, 1, 1, 1]> (b, w2)
        }""",
        w1=(16, 8, 3, 3),
        w2=(8, 16, 3, 3),
    )


def branch() -> Model:
    return graph(
        """g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          b = Conv <pads = [1, 1, 1, 1]> (a, w2)
          c = Conv <pads = [1, 1, 1, 1]> (a, w3)
          y = Add (b, c)
        }""",
        w1=(16, 8, 3, 3),
        w2=(8, 16, 3, 3),
        w3=(8, 16, 3, 3),
    )


def residual() -> Model:
    return graph(
        """g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
          r = Relu (a)
          b = Conv <pads = [1, 1, 1, 1]> (r, w2)
          s = Add (b, r)
          y = Relu (s)
        }""",
        w1=(8, 8, 3, 3),
        b1=(8,),
        w2=(8, 8, 3, 3),
    )


def silu() -> Model:
    return graph(
        """g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          s = Sigmoid (a)
          m = Mul (a, s)
          y = Conv <pads = [1, 1, 1, 1]> (m, w2)
        }""",
        w1=(8, 8, 3, 3),
        w2=(8, 8, 3, 3),
    )


def concat() -> Model:
    return graph(
        """g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          b = Conv (x, w2)
          c = Concat <axis = 1> (a, b)
          y = Conv (c, w3)
        }""",
        w1=(8, 8, 3, 3),
        w2=(8, 8, 1, 1),
        w3=(8, 16, 1, 1),
    )


def squeeze_excite() -> Model:
    return graph(
        """g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          p = GlobalAveragePool (a)
          q = Conv (p, w2)
          r = Relu (q)
          s = Conv (r, w3)
          t = Sigmoid (s)
          m = Mul (a, t)
          y = Conv (m, w4)
        }""",
        w1=(8, 8, 3, 3),
        w2=(4, 8, 1, 1),
        w3=(8, 4, 1, 1),
        w4=(8, 8, 1, 1),
    )


def linear() -> Model:
    return graph(
        """g (float[N, 6, 32] x) => (float[N, 6, 16] y) {
          a = MatMul (x, w)
          y = Add (a, b)
        }""",
        w=(32, 16),
        b=(16,),
    )


def attention() -> Model:
    return graph(
        """g (float[N, 6, 32] x) => (float[N, 6, 32] y) {
          q = MatMul (x, wq)
          k = MatMul (x, wk)
          v = MatMul (x, wv)
          t = Transpose <perm = [0, 2, 1]> (k)
          s = MatMul (q, t)
          p = Softmax <axis = -1> (s)
          y = MatMul (p, v)
        }""",
        wq=(32, 32),
        wk=(32, 32),
        wv=(32, 32),
    )


def transformer_block() -> Model:
    return graph(
        """g (float[N, 6, 32] x) => (float[N, 6, 32] y) {
          h = LayerNormalization <axis = -1> (x, gain, shift)
          [query] q = MatMul (h, wq)
          [key] k = MatMul (h, wk)
          t = Transpose <perm = [0, 2, 1]> (k)
          [scores] s = MatMul (q, t)
          p = Softmax <axis = -1> (s)
          [mix] m = MatMul (p, h)
          [out] o = MatMul (m, wo)
          r = Add (o, h)
          y = LayerNormalization <axis = -1> (r, gain, shift)
        }""",
        gain=np.ones(32, np.float32),
        shift=np.zeros(32, np.float32),
        wq=(32, 32),
        wk=(32, 32),
        wo=(32, 32),
    )


PATTERNS = {
    f.__name__: f
    for f in (chain, branch, residual, silu, concat, squeeze_excite, linear, attention)
}


def detector(end: str = "[join] y = Concat <axis = 1> (boxes, scores)") -> Model:
    """Boxes in hundreds of pixels beside scores, joined and brought to the output by `end`."""
    return graph(
        f"""g (float[1, 3, 32, 32] x) => (float[1, 14, 64] y) {{
          [first] a = Conv <strides = [4, 4], pads = [1, 1, 1, 1]> (x, w)
          [relu] c = Relu (a)
          [where] b = Conv (c, wb)
          [four] d = Reshape (b, four)
          [positive] e = Relu (d)
          [scale] boxes = Mul (e, stride)
          [what] k = Conv (c, wk)
          [ten] l = Reshape (k, ten)
          [squash] scores = Sigmoid (l)
          {end}
        }}""",
        w=(16, 3, 3, 3),
        wb=(4, 16, 1, 1),
        wk=4 * np.random.default_rng(5).standard_normal((10, 16, 1, 1)).astype(np.float32),
        stride=np.array([80], np.float32),
        four=np.array([1, 4, 64], np.int64),
        ten=np.array([1, 10, 64], np.int64),
        step=np.array(2.5, np.float32),
        zero=np.array(0, np.uint8),
    )


def stubborn(layers: int = 5) -> tuple[Model, Dataset]:
    """A chain of 1x1 convolutions that each do a little harm."""
    lines = [f"[c{i}] t{i + 1} = Conv (t{i}, w{i})" for i in range(layers)]
    head = f"g (float[N, 8, 6, 6] t0) => (float[N, 8, 6, 6] t{layers}) {{"
    rng = np.random.default_rng(3)
    weights = {f"w{i}": np.linalg.qr(rng.standard_normal((8, 8)))[0] for i in range(layers)}
    weights = {n: w.astype(np.float32).reshape(8, 8, 1, 1) for n, w in weights.items()}
    model = graph("\n".join([head, *lines, "}"]), **weights)
    return model, normal(model, rows=48)


def spoiled() -> tuple[Model, Dataset]:
    """Two branches; one squares its input, so that its activation has a few enormous values."""
    model = graph(
        """g (float[N, 8, 6, 6] x) => (float[N, 8, 6, 6] y) {
          [good] a = Conv (x, w0)
          b = Mul (x, x)
          c = Mul (b, b)
          d = Mul (c, c)
          [bad] e = Conv (d, w1)
          f = Mul (e, small)
          [last] g = Conv (a, w2)
          y = Add (f, g)
        }""",
        w0=(8, 8, 1, 1),
        w1=(8, 8, 1, 1),
        w2=(8, 8, 1, 1),
        small=np.array([0.05], np.float32),
    )
    return model, normal(model, rows=96)
