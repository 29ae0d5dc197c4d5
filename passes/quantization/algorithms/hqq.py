"""HQQ (Badri and Shaji 2023) of onnxruntime: zero points of blocks that are robust to outliers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from trimtab.core.data import Array
from trimtab.core.errors import MissingExtraError

from .block_weights import PackedWeight

#: Bits that it supports.
BITS = 4


def half_quadratic(weight: Array, block: int) -> PackedWeight:
    """Round a weight (in, out) to 4 bits, with float zero points.

    Raises:
        MissingExtraError: torch is not installed.
    """
    from onnxruntime.quantization import matmul_nbits_quantizer as tool

    size = {"block_size": block, "bits": BITS}
    config: Any = tool.HQQWeightOnlyQuantConfig(**size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the arrays that it is given
            quantizer = tool.MatMulNBitsQuantizer(_product(weight), **size, algo_config=config)
            quantizer.process()
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"method 'hqq' needs {error.name}", extra="torch") from error
    graph = quantizer.model.model.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values, scales, zeros = (arrays[name] for name in graph.node[0].input[1:4])
    return PackedWeight(values, scales, zeros)


def _product(weight: Array) -> onnx.ModelProto:
    """Return a model of one product with this weight."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    sizes = (("x", weight.shape[0]), ("y", weight.shape[1]))
    x, y = (onnx.helper.make_tensor_value_info(name, kind, ["rows", n]) for name, n in sizes)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    tensor = numpy_helper.from_array(np.ascontiguousarray(weight), "w")
    graph = onnx.helper.make_graph([node], "product", [x], [y], [tensor])
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
