"""Models and data as users hand them over in Python: in memory, by path, as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cnn_data import arrays
from graphs import cnn

import trimtab
from trimtab.core.errors import DataError
from trimtab.passes import QuantizeStatic


@pytest.mark.slow
@pytest.mark.parametrize("how", ["path", "text", "arrays", "dataset"])
def test_data_and_models_are_taken_in_any_form(how: str, model: Path, data: Path) -> None:
    forms = {"path": data, "text": str(data), "arrays": arrays()}
    given = forms.get(how) or trimtab.Dataset.open(data)
    quality = trimtab.evaluate(model, given, reference=str(model))
    assert quality.count == len(arrays()["labels"])
    quick = {"in_process": True, "max_seconds": 0.2}
    for candidates in (str(model), [model], cnn()):
        (found,) = trimtab.compare(model, candidates, given, **quick)
        assert found.candidate.samples_ns
    step = QuantizeStatic(data=given)(model).lineage[-1]
    assert step.pass_name == "quantize-static"


def test_data_that_are_missing_are_told_when_the_pass_is_made() -> None:
    with pytest.raises(DataError, match="no such file"):
        QuantizeStatic(data="none.npz")
    with pytest.raises(DataError):
        QuantizeStatic(data={"x": np.zeros(())})
