"""Finetune: accuracy restored after pruning and rounding, and refused inputs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import torch
from finetune_cases import Interrupting, context, images, notes, weights

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, MissingExtraError, ModelError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import EXACT_INT8, SessionConfig, build_session, run
from trimtab.passes import Finetune, PruneChannels, PruneMagnitude, QuantizeStatic, Simplify
from trimtab.passes.base import relative_error
from trimtab.passes.training.torch_graph import checkpoint, to_module
from trimtab.passes.training.torch_graph.augment import UNAUGMENTED, Augment, resolve_augmentation
from trimtab.passes.training.torch_graph.batches import fitted_rows, make_batches

pytestmark = pytest.mark.usefixtures("one_thread")


SHORT = {"epochs": 8, "batch": 16, "learning_rate": 5e-3}


def test_a_pruned_network_comes_near_its_teacher_again_and_its_zeros_stay() -> None:
    teacher = graphs.cnn()
    pruned = PruneMagnitude(sparsity=0.6)(teacher, context())
    after = Finetune(teacher=teacher, **SHORT)(pruned, context())
    before, best = notes(after)["validation"]
    assert best < 0.5 * before
    for name in ("w0", "w1", "w2", "w3"):
        np.testing.assert_array_equal(weights(after)[name][weights(pruned)[name] == 0], 0)
    assert not np.array_equal(weights(after)["w1"], weights(pruned)["w1"])


def test_the_reported_loss_is_what_onnxruntime_computes() -> None:
    teacher = graphs.cnn()
    pruned = PruneMagnitude(sparsity=0.6)(teacher, context())
    after = Finetune(teacher=teacher, **SHORT)(pruned, context())
    parts = images().split({"training": 0.9, "validation": 0.1}, seed=3)
    (batch,) = parts["validation"]
    mine, theirs = (run(build_session(m), dict(batch.feeds))["y"] for m in (after, teacher))
    relative = np.square(mine - theirs).mean() / np.square(theirs).mean()
    assert relative == pytest.approx(notes(after)["validation"][1], rel=1e-3)


def quantized(**fields: Any) -> Model:
    return QuantizeStatic(**fields)(Simplify()(graphs.cnn(), context()), context())


def coarse() -> Model:
    """Weights of four bits in eight: rounded to the nearest."""
    model = quantized()
    for name, weight in to_module(model).weights.items():
        if weight.role == "kernel" and weight.qparams:
            value = model.graph.initializers[name]
            step = model.graph.initializers[weight.qparams.scale]
            rounded = np.round(value.const_value.numpy() / 18).astype(np.int8)
            value.const_value = ir.tensor(rounded, name=name)
            step.const_value = ir.tensor(step.const_value.numpy() * 18, name=step.name)
    return model


@pytest.mark.slow
def test_a_quantized_graph_trains_through_its_rounding() -> None:
    rough = coarse()
    after = Finetune(teacher=graphs.cnn(), **SHORT)(rough, context())
    before, best = notes(after)["validation"]
    assert best < 0.7 * before
    assert graphs.ops(after) == graphs.ops(rough)
    old, new = weights(rough), weights(after)
    assert {n: a.dtype for n, a in new.items()} == {n: a.dtype for n, a in old.items()}
    for name, weight in to_module(rough).weights.items():
        if weight.role == "kernel" and weight.qparams:
            assert -8 <= new[name].min() <= new[name].max() <= 7


@pytest.mark.slow
def test_onnxruntime_agrees_with_the_trained_module() -> None:
    after = Finetune(teacher=graphs.cnn(), **SHORT)(coarse(), context())
    feeds = random_feeds(after, batch=8)
    exact = SessionConfig(config={EXACT_INT8: "1"})  # on a CPU without VNNI as on one with it
    expected = run(build_session(after, exact), feeds)["y"]
    with torch.no_grad():
        got = to_module(after).run({n: torch.from_numpy(a) for n, a in feeds.items()})["y"]
    assert relative_error(expected, got.numpy()) < 0.03


@pytest.mark.slow
def test_steps_of_biases_follow_from_the_learned_ones() -> None:
    after = Finetune(teacher=graphs.cnn(), **SHORT)(quantized(), context())
    values = weights(after)
    checked = 0
    for node in after.graph:
        if node.op_type not in {"Conv", "Gemm"} or len(node.inputs) < 3:
            continue
        steps = [v.producer().inputs[1].name for v in node.inputs if v is not None]
        x, w, b = (values[name].reshape(-1) for name in steps)
        np.testing.assert_allclose(b, x * w, rtol=1e-6)
        checked += 1
    assert checked >= 2


@pytest.mark.slow
def test_steps_stay_where_they_are_not_learned() -> None:
    rough = quantized()
    after = Finetune(teacher=graphs.cnn(), learn_steps=False, **SHORT)(rough, context())
    for name, weight in to_module(rough).weights.items():
        if weight.role == "step":
            np.testing.assert_array_equal(weights(after)[name], weights(rough)[name])


def test_learns_from_labels_alone() -> None:
    data = images(labels=True)
    pruned = PruneMagnitude(sparsity=0.8)(graphs.cnn(), context())
    after = Finetune(loss=("ce",), **SHORT)(pruned, context(data))
    before, best = notes(after)["validation"]
    assert best < before


def test_the_default_loss_is_kd_with_labels_and_mse_without() -> None:
    short = Finetune(steps=1)
    assert notes(short(graphs.cnn(), context(images(labels=True))))["loss"] == {"kd": 1.0}
    assert notes(short(graphs.cnn(), context()))["loss"] == {"mse": 1.0}


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "sgd", "schedule": "step"},
        {"schedule": "one-cycle", "ema": 0.9},
        {"schedule": "plateau", "evaluate_every": 2},
        {"batch_norm": "trained", "warmup": 0.3},
        {"batch_norm": "re-estimated", "augment": "both"},
        {"loss": ("mse:0.5", "cosine", "kd:0.1")},
        {"loss": ("mse", "features:0.5"), "features": ("r0", "r1=a1")},
        {"precision": "bf16"},
        {"threads": 0},
        {"time": "1s"},
    ],
)
def test_each_way_to_train_improves(fields: dict[str, Any]) -> None:
    teacher = graphs.cnn()
    pruned = PruneMagnitude(sparsity=0.6)(teacher, context())
    given = SHORT | {"epochs": 3} if "time" not in fields else {"batch": 16, "learning_rate": 5e-3}
    after = Finetune(teacher=teacher, **given | fields)(pruned, context())
    before, best = notes(after)["validation"]
    assert best < before


def test_norms_that_trained_are_folded_by_default() -> None:
    teacher = graphs.cnn()
    how = Finetune(teacher=teacher, batch_norm="trained", epochs=1, batch=16)
    assert "BatchNormalization" not in graphs.ops(how(teacher, context()))
    assert "BatchNormalization" in graphs.ops(how.with_fields(fold=False)(teacher, context()))
    assert "BatchNormalization" in graphs.ops(Finetune(steps=1)(teacher, context()))


def test_cached_teacher_outputs_change_nothing(tmp_path: Path) -> None:
    teacher = graphs.cnn()
    pruned = PruneMagnitude(sparsity=0.6)(teacher, context())
    how = Finetune(teacher=teacher, augment="both", views=2, **SHORT | {"epochs": 3})
    plain = how(pruned, context())
    first = how.with_fields(cache=str(tmp_path))(pruned, context())
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(files) == 4  # two views, the items as they are, and what a record holds
    second = how.with_fields(cache=str(tmp_path))(pruned, context())
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files
    for name, array in weights(plain).items():
        np.testing.assert_array_equal(weights(first)[name], array)
        np.testing.assert_array_equal(weights(second)[name], array)


def test_whole_batches_of_the_users_code_train_with_a_cache(tmp_path: Path) -> None:
    def stream() -> Iterator[dict[str, np.ndarray]]:
        for batch in images(64).sized(16):
            yield dict(batch.feeds)

    data = Dataset.of_batches(stream)
    pruned = PruneMagnitude(sparsity=0.6)(graphs.cnn(), context())
    how = Finetune(teacher=graphs.cnn(), epochs=4, learning_rate=5e-3, augment="mirror")
    after = how.with_fields(cache=str(tmp_path))(pruned, context(data))
    before, best = notes(after)["validation"]
    assert best < before


def test_shards_give_batches_of_one_size(tmp_path: Path) -> None:
    (batch,) = images(40).sized(40)
    for index, part in enumerate(np.split(batch.feeds["x"], [7, 20])):
        np.savez(tmp_path / f"{index}.npz", x=part)
    data = Dataset.open(tmp_path)
    made = make_batches(graphs.cnn(), data, 0.25, 8, seed=0)
    taken = [t for t, _ in zip(made.stream(0), range(made.per_epoch), strict=False)]
    assert [t.batch.size for t in taken] == [8] * made.per_epoch
    for one in taken:
        np.testing.assert_array_equal(one.batch.feeds["x"], batch.feeds["x"][one.rows])


def test_colour_images_are_augmented_where_a_teacher_answers() -> None:
    def chosen(shape: str, *, taught: bool) -> str:
        model = graphs.model_of(f"(float{shape} x) => (float{shape} y) {{ y = Relu (x) }}")
        return resolve_augmentation(model, "auto", taught=taught)

    assert chosen("[n,3,32,32]", taught=True) == "both"
    assert chosen("[n,3,32,32]", taught=False) == "shift"
    assert chosen("[n,1,32,32]", taught=True) == "none"
    assert chosen("[n,3,8,8]", taught=True) == "none"
    assert chosen("[n,16]", taught=True) == "none"


def test_a_view_of_an_item_is_the_same_in_any_batch() -> None:
    augment = Augment("both", seed=1, views=3, count=10)
    x = torch.rand(10, 3, 16, 16)
    whole = augment({"x": x}, 2, np.arange(10))["x"]
    some = augment({"x": x[[1, 5]]}, 2, np.array([1, 5]))["x"]
    torch.testing.assert_close(some, whole[[1, 5]], rtol=0, atol=0)
    assert augment.view(5) == 2
    assert not torch.equal(whole, augment({"x": x}, 1, np.arange(10))["x"])
    assert augment({"x": x}, UNAUGMENTED, np.arange(10))["x"] is x


def test_features_of_other_widths_are_projected() -> None:
    narrow = graphs.model_of("""(float[batch,3,8,8] x) => (float[batch,4] y)
        <float[5,3,3,3] w, float[4,5] v> {
            c = Conv <pads=[1,1,1,1]> (x, w)
            p = GlobalAveragePool (c)
            f = Flatten (p)
            y = Gemm <transB=1> (f, v)
        }""")
    how = Finetune(teacher=graphs.cnn(), loss=("mse", "features"), features=("c=r0",), **SHORT)
    before, best = notes(how(narrow, context()))["validation"]
    assert best < before
    other = Finetune(teacher=graphs.cnn(), features=("c=c2",), steps=1)
    with pytest.raises(ModelError, match="feature 'c'"):
        other(narrow, context())


def test_features_are_named_by_tensor_by_node_or_by_submodule() -> None:
    student, teacher = graphs.cnn(), graphs.cnn()
    for model in (student, teacher):
        for node in model.graph:
            node.name = f"body.{node.outputs[0].name}/{node.op_type}"
    for feature in ("r1", "body.r1/Relu", "body.r1", "body.r1=body.a1"):
        how = Finetune(teacher=teacher, loss=("features",), features=(feature,), steps=1)
        assert notes(how(student, context()))["steps"] == 1
    nowhere = Finetune(teacher=teacher, loss=("features",), features=("body.r",), steps=1)
    with pytest.raises(OptionError, match=r"body\.r"):
        nowhere(student, context())


def test_the_initial_weights_stay_where_nothing_does_better() -> None:
    model = graphs.cnn()
    after = Finetune(epochs=1, batch=16)(model, context())
    assert notes(after)["best_step"] == 0
    np.testing.assert_array_equal(weights(after)["w1"], weights(model)["w1"])


def test_a_loss_that_is_not_finite_stops_and_names_the_batch() -> None:
    pruned = PruneMagnitude(sparsity=0.6)(graphs.cnn(), context())
    how = Finetune(teacher=graphs.cnn(), optimizer="sgd", learning_rate=1e12, clip=0, epochs=9)
    after = how.with_fields(batch=16, warmup=0.0)(pruned, context())
    assert re.search(r"batch \d+ of epoch \d+: items \d+, ", notes(after)["stopped"])
    assert all(np.isfinite(a).all() for a in weights(after).values())


def test_patience_ends_it() -> None:
    after = Finetune(patience=2, epochs=50, batch=16)(graphs.cnn(), context())
    assert "no improvement" in notes(after)["stopped"]
    assert notes(after)["steps"] < 50


@pytest.mark.slow
def test_an_interrupted_run_returns_its_best_and_resumes_from_there(tmp_path: Path) -> None:
    teacher = graphs.cnn()
    pruned = PruneMagnitude(sparsity=0.6)(teacher, context())
    how = Finetune(teacher=teacher, **SHORT)
    whole = how(pruned, context())
    file = str(tmp_path / "state.pt")
    progress = Interrupting(after=13)
    first = how.with_fields(checkpoint=file)(pruned, context(progress=progress))
    assert notes(first)["stopped"] == "interrupted"
    assert notes(first)["validation"][1] < notes(first)["validation"][0]
    second = how.with_fields(checkpoint=file, resume=True)(pruned, context())
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(second)[name], array)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    how = Finetune(checkpoint=str(tmp_path / "state.pt"), resume=True, steps=1)
    how(graphs.cnn(), context())
    pruned = PruneMagnitude(sparsity=0.6)(graphs.cnn(), context())
    with pytest.raises(ModelError, match="another model"):
        how(pruned, context())
    (tmp_path / "state.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="not a checkpoint"):
        how(graphs.cnn(), context())


def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.pt"
    assert checkpoint.write(file, {"digest": "a"}) == ""

    def full(content: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert "No space left" in checkpoint.write(file, {"digest": "b"})
    assert checkpoint.read(file, "a") == {"digest": "a"}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_labels_out_of_range_and_missing_labels_are_refused() -> None:
    wrong = Dataset.of_arrays({"x": np.zeros((8, 3, 8, 8), np.float32)}, np.arange(8))
    with pytest.raises(DataError, match="4 classes"):
        Finetune(loss=("ce",))(graphs.cnn(), context(wrong))
    with pytest.raises(DataError, match="needs labels"):
        Finetune(loss=("ce",))(graphs.cnn(), context())


def test_too_few_items() -> None:
    with pytest.raises(DataError, match="1 items"):
        Finetune()(graphs.cnn(), context(images(1)))


def test_a_teacher_with_other_outputs() -> None:
    with pytest.raises(ModelError, match="outputs"):
        Finetune(teacher=graphs.relu_only())(
            graphs.model_of("""(float[batch,4] x) => (float[batch,3] z) <float[4,3] w> {
                z = MatMul (x, w)
            }"""),
            context(Dataset.of_arrays({"x": np.zeros((8, 4), np.float32)})),
        )


SHAPES = {
    "inputs": "(float[batch,3,8,8] image) => (float[batch,4] y) <float[192,4] w> {"
    " f = Flatten (image) y = MatMul (f, w) }",
    "takes x: [batch, 3, 9, 9]": "(float[batch,3,9,9] x) => (float[batch,4] y) <float[243,4] w> {"
    " f = Flatten (x) y = MatMul (f, w) }",
    "the teacher's 'y' is": "(float[batch,3,8,8] x) => (float[batch,5] y) <float[192,5] w> {"
    " f = Flatten (x) y = MatMul (f, w) }",
}


@pytest.mark.parametrize("what", SHAPES)
def test_a_teacher_of_other_inputs_or_shapes(what: str) -> None:
    with pytest.raises(ModelError, match=re.escape(what)) as refused:
        Finetune(teacher=graphs.model_of(SHAPES[what]), steps=1)(graphs.cnn(), context())
    assert refused.value.hint


def test_a_teacher_with_other_names_is_matched_by_order_if_asked() -> None:
    other = graphs.model_of(SHAPES["inputs"].replace(" y)", " z)").replace("y =", "z ="))
    with pytest.raises(ModelError, match="--match order"):
        Finetune(teacher=other, steps=1)(graphs.cnn(), context())
    after = Finetune(teacher=other, match="order", steps=1)(graphs.cnn(), context())
    assert notes(after)["steps"] == 1


def test_data_smaller_than_a_batch_are_one_batch() -> None:
    after = Finetune(epochs=3, batch=64)(graphs.cnn(), context(images(10)))
    assert notes(after)["items"] == [9, 1]
    assert notes(after)["steps"] == 3


def test_weights_before_an_operator_without_gradient_are_reported() -> None:
    model = graphs.model_of("""(float[n,4] x) => (float[n,3] y) <float[4,4] w, float[4,3] v> {
        m = MatMul (x, w)
        r = Round (m)
        y = MatMul (r, v)
    }""")
    data = Dataset.of_arrays({"x": np.random.default_rng(0).random((32, 4)).astype(np.float32)})
    other = graphs.model_of(
        """(float[n,4] x) => (float[n,3] y) <float[4,3] w> {
        y = MatMul (x, w)
    }""",
        seed=4,
    )
    progress = Interrupting(after=10**9)
    after = Finetune(teacher=other, steps=2, batch=8)(model, context(data, progress=progress))
    assert notes(after)["untrained"] == ["w"]
    assert any("Round" in line for line in progress.said)


@pytest.mark.parametrize("output", ["float[n] y", "int64[n] a"])
def test_a_graph_without_a_gradient_names_the_operators_that_block_it(output: str) -> None:
    model = graphs.model_of(f"""(float[n,4] x) => ({output}) <float[4,3] w> {{
        m = MatMul (x, w)
        a = ArgMax <axis=1, keepdims=0> (m)
        y = Cast <to=1> (a)
    }}""")
    data = Dataset.of_arrays({"x": np.ones((8, 4), np.float32)})
    with pytest.raises(ModelError, match="ArgMax"):
        Finetune(steps=1)(model, context(data))


def test_without_torch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("trimtab.passes.training.torch_graph.")]:
        if not name.endswith((".roles", ".options")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"trimtab\[torch\]"):
        Finetune()(graphs.cnn(), context())


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"loss": ("kdd",)}, "kd"),
        ({"loss": ("kd:much",)}, "not a valid weight"),
        ({"time": "soon"}, "20m"),
        ({"epochs": 1, "steps": 1}, "not both"),
        ({"resume": True}, "checkpoint"),
        ({"validation": 1.0}, "between 0 and 1"),
        ({"loss": ("features",)}, "features"),
    ],
)
def test_invalid_fields_are_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        Finetune(**fields)


def test_a_teacher_in_memory_is_named_in_the_lineage() -> None:
    teacher = graphs.cnn()
    after = Finetune(teacher=teacher, steps=1)(graphs.cnn(), context())
    assert after.lineage[-1].params["teacher"] == teacher.name


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trimtab.cli import main

    teacher = graphs.cnn()
    teacher.save(tmp_path / "float.onnx")
    PruneMagnitude(sparsity=0.6)(teacher, context()).save(tmp_path / "pruned.onnx")
    data = str(tmp_path / "data.npz")
    np.savez(data, **dict(next(iter(images(96).sized(96))).feeds))
    files = [str(tmp_path / n) for n in ("pruned.onnx", "out.onnx", "float.onnx")]
    args = ["finetune", files[0], "-o", files[1], "--teacher", files[2], "--data", data]
    assert main([*args, "--epochs", "8", "--batch", "16", "--learning-rate", "0.005"]) == 0
    before, best = notes(Model.load(files[1]))["validation"]
    assert best < 0.6 * before


def test_the_command_that_distills(tmp_path: Path) -> None:
    from trimtab.cli import main

    graphs.cnn().save(tmp_path / "teacher.onnx")
    student = graphs.model_of("""(float[batch,3,8,8] x) => (float[batch,4] y)
        <float[5,3,3,3] w, float[4,5] v> {
            c = Conv <pads=[1,1,1,1]> (x, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            f = Flatten (p)
            y = Gemm <transB=1> (f, v)
        }""")
    student.save(tmp_path / "student.onnx")
    data, out = str(tmp_path / "data.npz"), str(tmp_path / "out.onnx")
    np.savez(data, **dict(next(iter(images(96).sized(96))).feeds))
    args = ["distill", "--teacher", str(tmp_path / "teacher.onnx"), "--data", data, "-o", out]
    args += ["--student", str(tmp_path / "student.onnx"), "--epochs", "6", "--batch", "16"]
    assert main([*args, "--learning-rate", "0.01", "--features", "r=r0", "--loss", "mse"]) == 0
    before, best = notes(Model.load(out))["validation"]
    assert best < 0.8 * before


def test_weights_are_chosen_on_items_that_pruning_did_not_solve_for() -> None:
    data = images(40)
    pruned = PruneChannels(ratio=0.3, samples=10)(graphs.cnn(), context(data))
    fitted = fitted_rows(pruned, data)
    assert fitted.tolist() == data.take(10).positions.tolist()
    made = make_batches(pruned, data, 0.25, 8, 0, fitted)
    assert len(made.validation) == 10
    assert not np.intersect1d(made.validation.positions, fitted).size
    assert not made.validation.overlaps(made.training)
    assert fitted_rows(graphs.cnn(), data).size == 0


def test_weights_of_rank_five_are_trained() -> None:
    model = graphs.model_of(
        "(float[n,1,4,4,4] x) => (float[n,2,2,2,2] y) <float[2,1,3,3,3] w> { y = Conv (x, w) }"
    )
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((2, 1, 3, 3, 3)).astype(np.float32)
    model.graph.initializers["w"].const_value = ir.Tensor(kernel, name="w")
    rows = rng.standard_normal((16, 1, 4, 4, 4)).astype(np.float32)
    teacher = model.clone()
    teacher.graph.initializers["w"].const_value = ir.Tensor(kernel * 0.5, name="w")
    after = Finetune(teacher=teacher, steps=4, batch=8, learning_rate=0.1)(
        model, context(Dataset.of_arrays({"x": rows}))
    )
    before, best = notes(after)["validation"]
    assert best < before


@pytest.mark.parametrize("batched", [False, True])
def test_a_row_that_is_not_a_number_is_named_before_it_is_learnt_from(batched: bool) -> None:
    model = graphs.model_of(
        "(float[N,4] x) => (float[N,2] y) <float[4,2] w> { y = MatMul (x, w) }",
    )
    x = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
    x[5, 2] = np.nan
    rows = [{"x": x[i : i + 8]} for i in range(0, 32, 8)]
    data = Dataset.of_batches(lambda: iter(rows)) if batched else Dataset.of_arrays({"x": x})
    with pytest.raises(DataError, match="holds NaN or infinity in row 5"):
        Finetune(data=data, epochs=1)(model)
