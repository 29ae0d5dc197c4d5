"""Values of one node by ONNX's reference implementation, which no machine rounds otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from trimtab.core.data import Array


def evaluate_node(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> list[Array]:
    """Return the outputs of a node of the ONNX domain.

    Args:
        node: a node without subgraphs.
        inputs: an array for each of its inputs; None for one that is left out.
        opset: version of the ONNX operator set that it is read in.
    """
    from onnx.reference import ReferenceEvaluator

    feeds = {f"i{k}": array for k, array in enumerate(inputs) if array is not None}
    proto = onnx.NodeProto()
    proto.CopyFrom(ir.to_proto(node))
    del proto.input[:], proto.output[:]
    proto.input.extend(f"i{k}" if a is not None else "" for k, a in enumerate(inputs))
    proto.output.extend(f"o{k}" for k in range(len(node.outputs)))
    given, made = ([onnx.ValueInfoProto(name=n) for n in names] for names in (feeds, proto.output))
    graph = onnx.helper.make_graph([proto], "node", given, made)
    version = onnx.helper.make_opsetid("", opset)
    model = onnx.helper.make_model(graph, opset_imports=[version])
    return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, feeds)]
