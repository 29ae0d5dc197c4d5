"""Structured pruning as users call it: shares, reports, options that are refused."""

from __future__ import annotations

import graphs
import numpy as np
import onnx
import pytest
from channel_models import TARGET, chain, context, step
from shared_data import shared

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, InputError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.inner_outputs import with_only_outputs
from trimtab.core.ort.session import build_session, run
from trimtab.passes.base import relative_error
from trimtab.passes.pruning.channels import PruneChannels


def error(before: Model, after: Model) -> float:
    feeds = random_feeds(before, seed=5, batch=8)
    return relative_error(
        run(build_session(before), feeds)["y"], run(build_session(after), feeds)["y"]
    )


def test_half_of_the_channels_go_by_default_and_are_reported() -> None:
    after = PruneChannels()(chain(), context())
    notes = step(after)
    assert notes["channels"] == [64, 32]
    assert notes["oracle"] <= 1e-5
    assert notes["macs"][1] < notes["macs"][0]
    assert notes["bytes"][1] < notes["bytes"][0]
    assert notes["parameters"][1] == sum(
        v.const_value.size for v in after.graph.initializers.values()
    )
    assert [g["name"] for g in notes["groups"]] == ["conv_0", "conv_2"]
    assert notes["declined"] == [["conv_4", "its channels stay: is a graph output (the graph)"]]


def test_the_report_has_the_cost_of_the_operators_of_each_group() -> None:
    notes = step(PruneChannels(0.5, scope="local")(chain(32), context()))
    first, second = notes["groups"]
    per_pixel = [np.array([3 * 9 * 32 + 32 * 9 * 32, 32 * 9 * 32 + 32 * 5])]
    per_pixel.append(np.array([3 * 9 * 16 + 16 * 9 * 16, 16 * 9 * 16 + 16 * 5]))
    assert [first["macs"], second["macs"]] == (64 * np.stack(per_pixel, axis=1)).tolist()
    assert [first["parameters"], second["parameters"]] == np.stack(per_pixel, axis=1).tolist()


@pytest.mark.parametrize("importance", ["l1", "l2", "fpgm", "random"])
def test_criteria_of_weights_need_no_data(importance: str) -> None:
    after = PruneChannels(0.5, importance=importance, scope="local")(chain(), context())
    assert step(after)["channels"] == [64, 32]


def test_data_with_nan_are_refused_with_the_row() -> None:
    model = chain()
    feeds = {name: array.copy() for name, array in random_feeds(model, batch=8).items()}
    feeds["x"][5, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"NaN") as found:
        PruneChannels(0.5, data=Dataset.of_arrays(feeds))(model, context())
    assert "5" in str(found.value)


def test_a_weight_with_nan_is_refused_by_name() -> None:
    proto = chain().to_proto()
    broken = proto.graph.initializer[0]
    array = onnx.numpy_helper.to_array(broken).copy()
    array.flat[0] = np.nan
    broken.CopyFrom(onnx.numpy_helper.from_array(array, broken.name))
    with pytest.raises(InputError, match=f"weight '{broken.name}'"):
        PruneChannels(0.5)(Model.from_proto(proto), context())


@pytest.mark.parametrize("importance", ["mean_output", "least_squares"])
def test_criteria_of_data_refuse_to_go_without(importance: str) -> None:
    with pytest.raises(DataError, match="needs data"):
        PruneChannels(0.5, importance=importance)(chain(), context())


def test_a_channel_that_nothing_reads_goes_first() -> None:
    model = chain()
    w2 = graphs.weights_of(model)["w2"]
    w2[:, 3] = 0
    model = Model.from_proto(_with(model, "w2", w2))
    after = PruneChannels(0.05, importance="least_squares", block=1)(model, context(model))
    assert error(model, after) < 0.1


def _with(model: Model, name: str, array: np.ndarray):
    from onnx import numpy_helper

    proto = model.to_proto()
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return proto


def test_a_callable_scores_the_units_of_the_dependency_graph() -> None:
    def first_units_matter(graph):
        return np.arange(graph.count, 0, -1)

    model = chain()
    after = PruneChannels(0.5, importance=first_units_matter, scope="local")(model, context())
    kept = graphs.weights_of(after)
    shape = (16, 3, 3, 3)
    w1 = next(a for a in kept.values() if a.shape == shape)
    np.testing.assert_array_equal(w1, graphs.weights_of(model)["w1"][:16])


def test_an_importance_may_read_the_older_attribute_names() -> None:
    def size_of_weights(labels):
        scores = np.zeros(labels.count)
        for weight in labels.weights:
            for axis, ids in enumerate(weight.axes):
                if ids is not None and axis != weight.into:
                    np.add.at(scores, labels.class_of[ids], np.abs(weight.array()).mean())
        return scores

    model = chain()
    after = PruneChannels(0.5, importance=size_of_weights, scope="local")(model, context())
    assert step(after)["channels"] == [64, 32]


def test_an_own_importance_of_a_wrong_shape_is_refused() -> None:
    with pytest.raises(OptionError, match="finite scores"):
        PruneChannels(0.5, importance=lambda graph: np.ones(3))(chain(), context())


def test_repair_brings_the_output_back() -> None:
    model = chain()
    ctx = context(model)
    errors = {
        repair: error(model, PruneChannels(0.25, repair=repair, block=8, scope="local")(model, ctx))
        for repair in ("none", "bias", "least_squares")
    }
    assert errors["least_squares"] < errors["none"]
    assert errors["least_squares"] < errors["bias"]


def test_repair_writes_a_bias_where_there_was_none() -> None:
    model = graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) <float[16,3,1,1] w1, float[5,16,1,1] w2>"
        "{ a = Conv(x, w1) b = Sigmoid(a) y = Conv(b, w2) }"
    )
    ctx = context(model)
    plain = PruneChannels(0.5, repair="none")(model, ctx)
    repaired = PruneChannels(0.5, repair="bias")(model, ctx)
    assert error(model, repaired) < error(model, plain)


def test_repair_estimates_batch_normalisation_again() -> None:
    model = graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) <float[16,3,1,1] w1, float[16] b1, "
        "float[8,16,1,1] w2, float[8] s, float[8] o, float[8] m, float[8] var, float[5,8,1,1] w3> "
        "{ a = Conv(x, w1, b1) b = Relu(a) c = Conv(b, w2) d = BatchNormalization(c, s, o, m, var) "
        "y = Conv(d, w3) }"
    )
    ctx = context(model)
    after = PruneChannels(0.5, repair="batch_norm", protect=("conv_2",))(model, ctx)
    assert step(after)["repaired"] == 1
    norm = next(node for node in after.graph if node.op_type == "BatchNormalization")
    mean, variance = (norm.inputs[i].const_value.numpy() for i in (3, 4))
    seen = [
        run(build_session(with_only_outputs(after, ["c"])), b.feeds, ["c"])["c"] for b in ctx.data
    ]
    np.testing.assert_allclose(mean, np.concatenate(seen).mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(variance, np.concatenate(seen).var((0, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"ratio": 0.0},
        {"ratio": 1.0},
        {"ratio": 1.5},
        {"macs": 0.0},
        {"macs": 1.0},
        {"latency": -1.0},
        {"ratio": 0.5, "macs": 0.5},
        {"macs": 0.5, "latency": 0.5},
        {"block": 0},
        {"samples": 0},
    ],
)
def test_shares_that_mean_nothing_are_refused(fields: dict) -> None:
    with pytest.raises(OptionError):
        PruneChannels(**fields)


def test_a_protected_operator_keeps_its_channels() -> None:
    notes = step(PruneChannels(0.5, protect=("conv_0",), scope="local")(chain(), context()))
    assert [g["name"] for g in notes["groups"]] == ["conv_2"]


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(OptionError, match="Did you mean 'conv_"):
        PruneChannels(0.5, protect=("conv_9",))(chain(), context())


def test_a_model_without_channels_to_remove_is_left_alone_and_this_is_said() -> None:
    model = graphs.model_of(
        "(float[N, 4] x) => (float[N, 5] y) <float[4,5] w> { y = MatMul(x, w) }"
    )
    after = PruneChannels(0.5)(model, context())
    assert after.digest == model.digest
    assert "unchanged" in step(after)["note"]
    assert step(after)["declined"] == [
        ["matmul_0", "its channels stay: is a graph output (the graph)"]
    ]


def test_an_output_that_is_the_pruned_tensor_pins_it() -> None:
    model = graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y, float[N, 16, 8, 8] a) "
        "<float[16,3,1,1] w1, float[5,16,1,1] w2> { a = Conv(x, w1) y = Conv(a, w2) }"
    )
    after = PruneChannels(0.5)(model, context())
    assert "unchanged" in step(after)["note"]


def test_two_inputs_of_the_graph_in_one_add_pin_what_meets_them() -> None:
    model = graphs.model_of(
        "(float[N, 3, 8, 8] x, float[N, 16, 8, 8] z) => (float[N, 5, 8, 8] y) "
        "<float[16,3,1,1] w1, float[5,16,1,1] w2> "
        "{ s = Add(z, z) a = Conv(x, w1) b = Add(a, s) y = Conv(b, w2) }"
    )
    notes = step(PruneChannels(0.5)(model, context()))
    assert notes["declined"][0] == [
        "conv_1",
        "its channels stay: meets an axis that cannot change (add_2)",
    ]


def test_a_custom_operator_pins_its_channels() -> None:
    notes = step(PruneChannels(0.5, verify=False)(_custom(), context()))
    assert "operator com.microsoft.Gelu is not followed" in notes["declined"][0][1]


def _custom() -> Model:
    return graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) <float[16,3,1,1] w1, float[5,16,1,1] w2> "
        "{ a = Conv(x, w1) b = com.microsoft.Gelu(a) y = Conv(b, w2) }",
        imports=', "com.microsoft" : 1',
    )


@pytest.mark.slow
def test_same_input_same_bytes() -> None:
    model = chain()
    results = [PruneChannels(0.5)(model, context(model)).to_bytes() for _ in range(2)]
    assert results[0] == results[1]


def test_too_few_samples_for_a_fixed_batch_are_refused() -> None:
    model = graphs.model_of(
        "(float[8, 3, 4, 4] x) => (float[8, 5, 4, 4] y) <float[16,3,1,1] w1, float[5,16,1,1] w2> "
        "{ a = Conv(x, w1) y = Conv(a, w2) }"
    )
    data = Dataset.of_arrays({"x": np.zeros((8, 3, 4, 4), np.float32)}, batch=8)
    with pytest.raises(DataError, match="fewer than the 8"):
        PruneChannels(0.5, samples=5)(model, Context(target=TARGET, data=data))


def command(tmp_path, *options: str) -> tuple[int, Model | None]:
    from trimtab.cli import main

    chain(32).save(tmp_path / "in.onnx")
    out = tmp_path / "out.onnx"
    code = main(["prune", str(tmp_path / "in.onnx"), "-o", str(out), *options])
    return code, Model.load(out) if out.exists() else None


@pytest.mark.slow
def test_the_command_takes_channels_or_sparsity(tmp_path, capsys) -> None:
    code, model = command(tmp_path, "--channels", "0.5", "--protect", "conv_2")
    assert (code, model.lineage[-1].pass_name) == (0, "prune-channels")
    assert "latency" in capsys.readouterr().out
    code, model = command(tmp_path, "--sparsity", "0.5", "--block", "1,1", "--no-measure")
    assert (code, model.lineage[-1].pass_name) == (0, "prune-magnitude")
    code, _ = command(tmp_path, "--sparsity", "0.5", "--macs", "0.5")
    assert code == 2
    assert "one call does one of them" in capsys.readouterr().err


@pytest.mark.slow
def test_resnet20_at_half_its_multiplications_needs_no_training() -> None:
    model = Model.load(shared("data/resnet20.onnx"))
    after = PruneChannels(macs=0.5, importance="l2")(model, context())
    notes = step(after)
    assert notes["macs"][1] <= 0.5 * notes["macs"][0]
    assert notes["oracle"] <= 1e-5


def test_layers_of_branches_are_named_with_the_reason() -> None:
    model = graphs.model_of(
        """(float[N,8] x, bool which) => (float[N,8] y) {
          y = If (which) <
            then_branch = yes () => (float[N,8] a)
              <float[8,8] w = {"""
        + ",".join(["0.5"] * 64)
        + """}> { a = MatMul (x, w) },
            else_branch = no () => (float[N,8] b) { b = Relu (x) }
          >
        }"""
    )
    after = PruneChannels()(model, context())
    [[_, reason]] = step(after)["declined"]
    assert "a branch or a loop" in reason
