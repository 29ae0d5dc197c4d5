"""The public API as type checkers see it: read by mypy and pyright, never run.

Each `assert_type` fails where a name has become `Any`; a line marked `expect an error` fails where
the mistake in it goes unnoticed, since an unused suppression is an error itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import trimtab
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.passes import (
    ApplyForms,
    ApplyRewrites,
    Finetune,
    Pass,
    PruneChannels,
    QuantizeStatic,
    Recover,
    Simplify,
    find,
    names,
    registry,
)

model = trimtab.load("model.onnx")
assert_type(model, Model)
assert_type(Model.load(Path("model.onnx")), Model)
assert_type(model.digest, str)

data = Dataset.open("data.npz")
assert_type(data, Dataset)

# A pass has its own type, and gives a model.
assert_type(Simplify(), Simplify)
assert_type(Simplify()(model), Model)
assert_type(Simplify()("model.onnx"), Model)
assert_type(QuantizeStatic(data=data, samples=64)(model, Context()), Model)
assert_type(PruneChannels(ratio=0.3).ratio, float | None)
assert_type(find("simplify"), type[Pass])
assert_type(registry(), dict[str, type[Pass]])
assert_type(names(), list[str])

# Old names are the same classes.
assert_type(Recover(), Finetune)
assert_type(ApplyForms(), ApplyRewrites)

# Mistakes that a checker must see.
QuantizeStatic(sampels=64)  # type: ignore[call-arg]  # expect an error: a misspelt field
QuantizeStatic(samples="64")  # type: ignore[arg-type]  # expect an error: a wrong type
Simplify()(3)  # type: ignore[arg-type]  # expect an error: a number is not a model
QuantizeStatic(ranges="best")  # type: ignore[arg-type]  # expect an error: not a method
