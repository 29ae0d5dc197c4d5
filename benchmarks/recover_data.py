"""What the recovery benchmarks share: CIFAR-10 from the shared data, and top-1."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path

import numpy as np
from PIL import Image

from trimtab.core.dataset import Dataset
from trimtab.core.metric import evaluate
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import Target, usable_cpus

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def folder() -> Path:
    """The shared data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout."""
    checkout = Path(__file__).resolve().parent.parent
    return Path(os.environ.get("TRIMTAB_SHARED", checkout.parent / "shared")) / "data"


def cifar(split: str, count: int | None = None) -> Dataset:
    """The first `count` images of `train` or `eval`; any prefix holds all classes alike."""
    pack = np.load(folder() / f"cifar10_{split}.npz")
    blob, ends = pack["jpeg"].tobytes(), pack["offsets"][: None if count is None else count + 1]
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB"))
            for a, b in itertools.pairwise(ends)
        ]
    )
    images = ((pixels.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    labels = pack["labels"][: len(images)].astype(np.int64)
    return Dataset.of_arrays({"input": np.ascontiguousarray(images)}, labels, batch=250)


def network(name: str) -> Model:
    """One of the trained networks."""
    return Model.load(folder() / f"{name}.onnx")


def top1(model: Model, data: Dataset) -> float:
    """Top-1 in onnxruntime, int8 products summed in 32 bits whatever this CPU does.

    What 16-bit sums cost on x64 without VNNI is another question than what rounding costs.
    """
    config = SessionConfig.for_evaluation(Target.named("x64-avx512-vnni"), usable_cpus())
    return evaluate(model, data, "top1", config=config).value
