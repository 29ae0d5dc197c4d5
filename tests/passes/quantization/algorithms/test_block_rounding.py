from __future__ import annotations

import builtins

import numpy as np
import pytest
from int8_graphs import chain, graph, normal, residual

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import MissingExtraError
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.target import Target
from trimtab.passes.quantization.algorithms.adaptive_rounding import RoundWeights
from trimtab.passes.quantization.algorithms.block_rounding import find_blocks
from trimtab.passes.quantization.judge import Judge
from trimtab.passes.quantization.qdq.float_reference import prepare_reference
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))
NPU = QuantizeStatic(per_channel=False)  # where rounding costs enough to be seen


def two_blocks() -> Model:
    return graph(
        """g (float[N, 8, 6, 6] x) => (float[N, 8, 6, 6] y) {
          [stem] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          b = Relu (a)
          [first] c = Conv <pads = [1, 1, 1, 1]> (b, w2)
          d = Relu (c)
          [second] e = Conv <pads = [1, 1, 1, 1]> (d, w3)
          f = Add (e, b)
          g = Relu (f)
          [last] y = Conv <pads = [1, 1, 1, 1]> (g, w4)
        }""",
        w1=(8, 8, 3, 3),
        w2=(8, 8, 3, 3),
        w3=(8, 8, 3, 3),
        w4=(8, 8, 3, 3),
    )


def block_layers(model: Model) -> list[list[str]]:
    quantized = QuantizeStatic(data=normal(model))(model, VNNI)
    layers = {node for node in quantized.graph if node.op_type == "Conv"}
    reference_nodes = {node.name: node for node in prepare_reference(model).graph}
    return [
        [n.name for n in u.layers] for u in find_blocks(quantized.graph, layers, reference_nodes)
    ]


def test_a_block_lies_between_two_tensors_that_carry_everything():
    assert block_layers(two_blocks()) == [["stem"], ["first", "second"], ["last"]]
    assert [len(unit) for unit in block_layers(chain())] == [1, 1]


def correlated(model: Model, rows: int, seed: int) -> Dataset:
    """Images whose channels lie near a plane, as activations do: there rounding errors cancel."""
    shape = [rows, *model.inputs[0].shape[1:]]
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).standard_normal((shape[1], 2))
    x = np.einsum("ck,nkhw->nchw", mix, rng.standard_normal((rows, 2, *shape[2:])))
    x += 0.05 * rng.standard_normal(shape)
    return Dataset.of_arrays({"x": x.astype(np.float32)})


def rounded(model: Model, path, steps: int = 100) -> tuple[Model, Model]:
    data = correlated(model, 256, seed=1).sized(32)
    quantized = NPU.with_fields(data=data)(model, VNNI)
    reference = str(model.save(path / "f.onnx"))
    made = RoundWeights(data=data, reference=reference, unit="block", steps=steps)
    return quantized, made(quantized, VNNI)


@pytest.mark.slow
@pytest.mark.parametrize("make", [residual, two_blocks])
def test_the_output_gets_closer_to_float_and_every_layer_is_reported(make, tmp_path):
    pytest.importorskip("torch")
    model = make()
    quantized, made = rounded(model, tmp_path)
    fresh = list(correlated(model, 64, seed=7))
    before, after = (Judge(model, fresh, VNNI.target).of(m).loss for m in (quantized, made))
    assert after < before
    notes = made.lineage[-1].notes
    named = notes["rounded"] + [name for name, _ in notes.get("declined", [])]
    assert sorted(named) == sorted(n.name for n in made.graph if n.op_type == "Conv")
    assert notes["rounded"]
    assert int8_share(made).float_ops == 0


def test_integers_move_at_most_to_the_other_neighbour(tmp_path):
    pytest.importorskip("torch")
    quantized, made = rounded(residual(), tmp_path, steps=20)
    for name, value in made.graph.initializers.items():
        if name.startswith("w") and value.const_value.dtype.name == "INT8":
            old = quantized.graph.initializers[name].const_value.numpy().astype(int)
            assert np.abs(value.const_value.numpy() - old).max() <= 1


def test_without_torch_the_error_names_the_extra(tmp_path, monkeypatch):
    import sys

    real = builtins.__import__

    def no_torch(name, *args, **kwargs):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *args, **kwargs)

    for module in [
        m for m in sys.modules if m.startswith("trimtab.passes.training.torch_graph.rounding")
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", no_torch)
    with pytest.raises(MissingExtraError, match="PyTorch"):
        rounded(residual(), tmp_path, steps=1)
