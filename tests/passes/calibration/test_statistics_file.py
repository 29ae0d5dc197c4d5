from __future__ import annotations

import numpy as np
import pytest
from heard import Heard
from int8_graphs import chain, normal, residual

from trimtab.core.context import Context
from trimtab.core.errors import DataError
from trimtab.core.target import Target
from trimtab.passes.quantization import static as module
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def test_a_second_run_reads_the_statistics_of_the_first(tmp_path, monkeypatch):
    model = chain()
    data = normal(model)
    make = QuantizeStatic(data=data, statistics=str(tmp_path / "s.npz"))
    first = make(model, VNNI)
    monkeypatch.setattr(module, "calibrate", lambda *_: pytest.fail("calibrated again"))
    assert make(model, VNNI).digest == first.digest
    # Another method of ranges needs no second calibration either.
    assert make.with_fields(ranges="percentile")(model, VNNI).digest != first.digest


@pytest.mark.parametrize("changed", ["model", "data"])
def test_a_stale_file_is_refused(tmp_path, changed):
    model = chain()
    data = normal(model)
    QuantizeStatic(data=data, statistics=str(tmp_path / "s.npz"))(model, VNNI)
    if changed == "model":
        model = residual()
    else:
        data = normal(model, seed=9)
    with pytest.raises(DataError, match=f"made for another {changed}"):
        QuantizeStatic(data=data, statistics=str(tmp_path / "s.npz"))(model, VNNI)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_any_other_file_is_refused(tmp_path, content):
    path = tmp_path / "s.npz"
    if content is None:
        np.savez(path, x=np.zeros(3))
    else:
        path.write_bytes(content)
    model = chain()
    with pytest.raises(DataError, match="not a file of calibration statistics"):
        QuantizeStatic(data=normal(model), statistics=str(path))(model, VNNI)


def test_few_samples_are_reported():
    model, heard = chain(), Heard()
    QuantizeStatic(data=normal(model, rows=3))(model, Context(target=VNNI.target, progress=heard))
    assert heard.said == ["Only 3 samples to calibrate on: ranges may be too narrow"]
