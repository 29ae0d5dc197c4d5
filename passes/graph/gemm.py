"""Gemm as a product of matrices with a constant second factor, and what is added to it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .constant_reader import Folded
from .graph_writer import GraphWriter
from .queries import attr, input_at


@dataclass(frozen=True)
class GemmParts:
    """Parts of alpha * A B + beta * C, in the order in which they are applied.

    Attributes:
        weight: B, (in, out), not scaled.
        alpha: number that the product is multiplied by.
    """

    weight: Folded
    alpha: np.float32

    @property
    def scaled(self) -> Folded:
        """B times alpha."""
        if self.alpha == 1:
            return self.weight
        array = (self.weight.array * self.alpha).astype(self.weight.array.dtype)
        return dataclasses.replace(self.weight, array=array)


def parts_of_gemm(node: ir.Node, weight: Folded) -> GemmParts:
    """Return the factors of a Gemm whose second input holds this constant."""
    if attr(node, "transB", 0):
        weight = dataclasses.replace(weight, array=weight.array.T)
    return GemmParts(weight, np.float32(attr(node, "alpha", 1.0)))


def first_factor(writer: GraphWriter, node: ir.Node) -> ir.Value:
    """Return A as it is multiplied, (rows, in), after a Transpose where transA asks for it."""
    value = node.inputs[0]
    assert value is not None
    if not attr(node, "transA", 0):
        return value
    swap = ir.AttrInt64s("perm", [1, 0])
    return writer.result("Transpose", [value], node, f"{node.name}_A", swap)


def with_bias(writer: GraphWriter, node: ir.Node, product: ir.Value) -> ir.Value:
    """Return a product of a Gemm plus beta * C, which is stored where C is constant."""
    bias, beta = input_at(node, 2), np.float32(attr(node, "beta", 1.0))
    if bias is None or beta == 0:
        return product
    term = _scaled_bias(writer, node, bias, beta)
    return writer.result("Add", [product, term], node, f"{node.name}_bias")


def _scaled_bias(writer: GraphWriter, node: ir.Node, bias: ir.Value, beta: np.float32) -> ir.Value:
    """Return the term that a Gemm adds, as it broadcasts to (rows, columns)."""
    folded = writer.constants.fold(bias)
    if folded is None:
        if beta == 1:
            return bias
        dtype = np.float32 if bias.dtype is None else bias.dtype.numpy()
        factor = writer.constant(writer.graph, np.asarray(beta, dtype), f"{node.name}_beta")
        return writer.result("Mul", [bias, factor], node, f"{node.name}_beta")
    array = folded.array if beta == 1 else (folded.array * beta).astype(folded.array.dtype)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]  # the form of a bias that onnxruntime fuses
    same = beta == 1 and array.shape == folded.array.shape and bias.is_initializer()
    return bias if same else writer.constant(folded.graph, array, f"{bias.name}_scaled")
