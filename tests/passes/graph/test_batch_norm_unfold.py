"""BatchNormalization put back behind convolutions: where, that it changes nothing, its benefit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import torch
from finetune_cases import Interrupting, context, images, notes, weights

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, run
from trimtab.passes import ClusterWeights, Finetune, PruneMagnitude, QuantizeStatic, Simplify
from trimtab.passes.base import relative_error
from trimtab.passes.graph.forms.batch_norm_fold import fold_norms
from trimtab.passes.graph.forms.batch_norm_unfold import restore_norms
from trimtab.passes.training.torch_graph import to_module
from trimtab.passes.training.torch_graph.batches import make_batches
from trimtab.passes.training.torch_graph.norms import initialize_norms
from trimtab.passes.training.torch_graph.weights import write_back

#: As a network is trained with from the start.
FROM_THE_START: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "batch": 16}


def folded() -> Model:
    """Three convolutions without a norm; the first one's was folded."""
    return Simplify()(graphs.cnn(), context())


def difference(a: Model, b: Model) -> float:
    feeds = random_feeds(a, batch=5)
    old, new = (run(build_session(m), feeds) for m in (a, b))
    return max(relative_error(old[name], new[name]) for name in old)


def test_norms_alone_change_nothing_and_the_model_stays_as_it_was() -> None:
    model = folded()
    digest = model.digest
    after, norms = restore_norms(model)
    assert model.digest == digest
    assert len(norms) == graphs.ops(after).count("BatchNormalization") == 3
    assert [norm.kernel for norm in norms][1:] == ["w1", "w2"]
    assert difference(model, after) < 1e-6


def test_settled_norms_see_mean_0_and_variance_1_and_change_nothing() -> None:
    model = folded()
    after, norms = restore_norms(model)
    module = to_module(after)
    batches = make_batches(after, images(), 0.2, 16, seed=0)
    initialize_norms(module, norms, batches, torch.device("cpu"))
    for norm in norms:
        lengths = module.weight(norm.kernel).detach().flatten(1).norm(dim=1)
        np.testing.assert_allclose(lengths, 2**0.5, rtol=1e-5)
    settled = write_back(after, module)
    assert difference(model, settled) < 1e-5
    plain, count = fold_norms(settled)
    assert count == 3
    assert sorted(graphs.ops(plain)) == sorted(graphs.ops(model))
    assert [n.outputs[0].name for n in plain.graph] == [n.outputs[0].name for n in model.graph]
    assert difference(model, plain) < 1e-5
    module.mode.batch_norm = "trained"
    module.train()
    seen: list[torch.Tensor] = []
    module.mode.observe = lambda _, x: seen.append(x.detach())
    with torch.no_grad():
        for taken, _ in zip(batches.stream(0), range(batches.per_epoch), strict=False):
            module.run({"x": torch.from_numpy(taken.batch.feeds["x"])})
    first = torch.cat(seen[::3])  # nothing lies before it that the batch could move
    mean, var = (module.weight(getattr(norms[0], n)).detach() for n in ("mean", "var"))
    torch.testing.assert_close(first.mean((0, 2, 3)), mean, rtol=0.3, atol=0.05)
    torch.testing.assert_close(first.var((0, 2, 3)), var, rtol=0.3, atol=0.05)


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv (x, w)  y = Relu (c)",  # the last: its scale is the answer's
        "c = Conv (x, w)  n = BatchNormalization (c, s, s, s, s)  y = Conv (n, v)",
        "c = Conv (x, w)  d = Conv (c, w)  y = Relu (d)",  # its weight is another's too
    ],
)
def test_what_has_a_norm_or_shares_its_weight_or_is_last_stays(body: str) -> None:
    text = "(float[n,4,8,8] x) => (float[n,4,p,q] y) <float[4,4,1,1] w, float[4,4,1,1] v, "
    model = graphs.model_of(f"{text} float[4] s> {{ {body} }}")
    assert not restore_norms(model)[1]


@pytest.mark.parametrize("length", [0.0, 1e-25])
def test_a_kernel_of_nothing_stays_and_divides_nothing(length: float) -> None:
    model = folded()
    pruned = PruneMagnitude(sparsity=0.6)(model, context())
    zero = length * weights(pruned)["w1"][:1]
    value = pruned.graph.initializers["w1"]
    value.const_value = ir.tensor(np.concatenate([zero, weights(pruned)["w1"][1:]]), name="w1")
    after = Finetune(teacher=graphs.cnn(), batch_norm="restored", epochs=4, **FROM_THE_START)(
        pruned, context()
    )
    assert notes(after)["restored"] == notes(after)["folded"] == 3
    for name in ("w1", "w2"):
        assert np.isfinite(weights(after)[name]).all()
        np.testing.assert_array_equal(weights(after)[name][weights(pruned)[name] == 0], 0)


def test_what_the_pass_says_is_what_onnxruntime_computes_of_the_folded_graph() -> None:
    teacher = graphs.cnn()
    pruned = PruneMagnitude(sparsity=0.6)(folded(), context())
    how = Finetune(teacher=teacher, batch_norm="restored", epochs=8, **FROM_THE_START)
    after = how(pruned, context())
    before, best = notes(after)["validation"]
    assert best < 0.5 * before
    parts = images().split({"training": 0.9, "validation": 0.1}, seed=3)
    (batch,) = parts["validation"]
    mine, theirs = (run(build_session(m), dict(batch.feeds))["y"] for m in (after, teacher))
    relative = np.square(mine - theirs).mean() / np.square(theirs).mean()
    assert relative == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("made", [ClusterWeights(), QuantizeStatic()])
def test_shared_and_rounded_weights_get_no_norms(made: Any) -> None:
    model = made(folded(), context())
    after = Finetune(teacher=graphs.cnn(), batch_norm="restored", epochs=1, batch=16)(
        model, context()
    )
    assert "restored" not in notes(after)
    assert sorted(graphs.ops(after)) == sorted(graphs.ops(model))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"array 'x' holds NaN or infinity in row 0"),
        (3e38, r"NaN or infinity inside of the network.*items"),
    ],
)
def test_what_is_no_number_is_reported_with_its_rows(value: float, message: str) -> None:
    """Rows that hold it, and finite rows that overflow inside, get into no weight."""
    (batch,) = images().sized(96)
    x = batch.feeds["x"].copy()
    x[:, 0] = value * np.random.default_rng(0).choice([-1, 1], x[:, 0].shape)
    data = Dataset.of_arrays({"x": x})
    how = Finetune(teacher=graphs.cnn(), batch_norm="restored", epochs=1, batch=16)
    with pytest.raises(DataError, match=message):
        how(folded(), context(data))


@pytest.mark.slow
def test_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    pruned = PruneMagnitude(sparsity=0.6)(folded(), context())
    how = Finetune(teacher=graphs.cnn(), batch_norm="restored", epochs=3, **FROM_THE_START)
    whole = how(pruned, context())
    saved = how.with_fields(checkpoint=str(tmp_path / "state.pt"))
    saved(pruned, context(progress=Interrupting(7)))
    again = saved.with_fields(resume=True)(pruned, context())
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(again)[name], array)
