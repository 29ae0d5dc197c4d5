"""The networks are those that the published checkpoints were trained with."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from shared_data import shared
from torch import nn

from trimtab.models import build

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_checkpoint_gives_the_logits_of_the_graph_beside_it(name: str) -> None:
    import onnxruntime as ort
    from safetensors.torch import load_file

    weights, graph = shared(f"data/{name}.safetensors"), shared(f"data/{name}.onnx")
    network = build(name)
    network.load_state_dict(load_file(weights), strict=True)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["logits"], {"input": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(network.eval()(images).numpy(), expected, rtol=0, atol=1e-4)


def test_mobilenet_convolutions_are_those_of_the_trained_graph() -> None:
    """Its names differ, so the convolutions are compared in the order in which they run."""
    proto = onnx.load(shared("data/mobilenet_v2.onnx"))
    dims = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    expected = []
    for node in proto.graph.node:
        if node.op_type == "Conv":
            fields = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            expected.append((dims[node.input[1]], tuple(fields["strides"]), fields["group"]))
    network = build("mobilenet_v2_cifar", width=0.5)
    assert expected == [
        (tuple(m.weight.shape), m.stride, m.groups)
        for m in network.modules()
        if isinstance(m, nn.Conv2d)
    ]
