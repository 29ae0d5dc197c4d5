"""The shared data: CIFAR-10, trained networks, third-party files, and top-1."""

from __future__ import annotations

import importlib
import io
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trimtab.core.dataset import Dataset
from trimtab.core.metric import evaluate
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import Target, usable_cpus

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # for the examples, whose MiniLM is measured

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def folder() -> Path:
    """Return the folder of the data, in TRIMTAB_SHARED, else in `shared` beside the checkout."""
    return Path(os.environ.get("TRIMTAB_SHARED", ROOT.parent / "shared")) / "data"


#: Third-party files, and the script that makes their rows and judges what is left of their job.
REAL, MEASURE = folder() / "real", folder().parent / "measure" / "real.py"


def real() -> Any:
    """Return that script as a module."""
    sys.path.append(str(MEASURE.parent))
    return importlib.import_module("real")


def cifar(split: str, count: int | None = None) -> Dataset:
    """Load the first `count` images of `train` or `eval`; prefixes have equal classes."""
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
    """Load one of the trained networks."""
    return Model.load(folder() / f"{name}.onnx")


def own(name: str) -> Model:
    """Return one of our reference networks with random weights."""
    from trimtab.exporter import export
    from trimtab.models import NETWORKS

    return export(NETWORKS[name].build())


def minilm() -> Model:
    """Return all-MiniLM-L6-v2 with its mean over tokens, batch and length dynamic."""
    from trimtab.exporter import export

    return export(importlib.import_module("examples.minilm").encoder(), name="minilm")


def top1(model: Model, data: Dataset) -> float:
    """Return top-1 in onnxruntime, with int8 products summed in 32 bits on any CPU.

    The cost of 16-bit sums on x64 without VNNI is separate from the cost of rounding.
    """
    config = SessionConfig.for_evaluation(Target.named("x64-avx512-vnni"), usable_cpus())
    return evaluate(model, data, "top1", config=config).value
