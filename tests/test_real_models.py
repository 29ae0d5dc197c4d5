"""Real trained networks and real data, end to end through the public face.

The CIFAR-10 and STS-B data lie in a folder `shared` beside the checkout; without it these tests
say so and skip. Timed figures live in `benchmarks/`; here only what must hold on any machine.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from made_comparisons import made_comparisons
from shared_data import shared

import trimtab
from trimtab.core.context import Context
from trimtab.core.metric import evaluate
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes import find

pytestmark = pytest.mark.slow
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
#: Without vgg19, 550 MB of the operators that bvlc_alexnet and zfnet512 have.
LIGHT = sorted(
    path
    for path in Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx")
    if path.stem != "light_vgg19"
)
CTX = Context(target=Target.detect(1))


def cifar(split: str, count: int) -> trimtab.Dataset:
    """The first `count` images, which are balanced by class, as (N, 3, 32, 32) float32."""
    from PIL import Image

    pack = np.load(shared(f"data/cifar10_{split}.npz"))
    blob, ends = pack["jpeg"].tobytes(), pack["offsets"]
    pixels = [
        np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB"), np.float32)
        for a, b in itertools.pairwise(ends[: count + 1])
    ]
    images = ((np.stack(pixels) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    labels = pack["labels"][:count].astype(np.int64)
    return trimtab.Dataset.of_arrays({"input": np.ascontiguousarray(images)}, labels, batch=250)


@pytest.fixture(scope="module")
def calibration() -> trimtab.Dataset:
    return cifar("train", 256)


@pytest.fixture(scope="module")
def evaluation() -> trimtab.Dataset:
    return cifar("eval", 5000)


# resnet56 is resnet20 with more of the same layers: fewer pictures show what their number adds.
@pytest.mark.parametrize(
    ("name", "pictures"), [("resnet20", 5000), ("resnet56", 2000), ("mobilenet_v2", 5000)]
)
def test_static_int8_keeps_the_accuracy_with_every_convolution_in_int8(
    name: str, pictures: int, calibration: trimtab.Dataset, evaluation: trimtab.Dataset
) -> None:
    model, data = trimtab.load(shared(f"data/{name}.onnx")), evaluation.take(pictures)
    small = find("quantize-static")(data=calibration)(find("simplify")()(model, CTX), CTX)
    share = int8_share(small, SessionConfig(threads=1))
    assert share.float_ops == 0
    assert share.int8_share == 1
    drop, _ = evaluate(small, data).drop_from(evaluate(model, data))
    assert drop <= 0.005


def test_optimize_chooses_a_recipe_that_makes_the_same_bytes_again(
    calibration: trimtab.Dataset, evaluation: trimtab.Dataset, tmp_path: Path
) -> None:
    from trimtab.search.optimize import optimize, save_outcome

    np.savez(tmp_path / "calib.npz", **next(iter(calibration.sized(256))).feeds)
    model = trimtab.load(shared("data/resnet20.onnx"))
    outcome = optimize(
        model,
        trimtab.Dataset.open(tmp_path / "calib.npz"),
        eval_data=evaluation.take(1000),
        ctx=CTX,
        passes=("simplify", "quantize-static", "apply-rewrites"),
        measure=made_comparisons(2.0),
    )
    save_outcome(outcome, tmp_path / "out")
    assert outcome.chosen is not None
    assert not [r for r in outcome.results if r.failure]
    recipe = trimtab.Recipe.load(tmp_path / "out" / "recipe.yaml")
    again = recipe(model).save(tmp_path / "again.onnx")
    assert again.read_bytes() == (tmp_path / "out" / "model.onnx").read_bytes()


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_old_zoo_models_become_ones_that_can_be_quantized_and_run(path: Path) -> None:
    model = trimtab.load(path)
    simple = find("simplify")()(model, CTX)
    assert simple.opset == 13
    assert simple.size_bytes < model.size_bytes + 1_100_000
    assert simple.graph.num_nodes() < model.graph.num_nodes()
    assert simple.inputs == model.inputs
    small = find("quantize-dynamic")()(simple, CTX)
    outputs = run(build_session(small), random_feeds(small))
    assert all(np.isfinite(array).all() for array in outputs.values())


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2_cifar", "text_encoder"])
def test_a_network_exports_simplifies_quantizes_and_runs(
    name: str, exported: Callable[[str], trimtab.Model]
) -> None:
    small = find("quantize-dynamic")()(find("simplify")()(exported(name), CTX), CTX)
    outputs = run(build_session(small), random_feeds(small, batch=2))
    assert all(np.isfinite(array).all() for array in outputs.values())
