"""Models as users have them: modules of other libraries, files with external data."""

from __future__ import annotations

from pathlib import Path

import graphs
import onnx
import pytest
from cnn_data import arrays
from search_fakes import LOOSE, fast_int8

from trimtab.search import optimize, save_outcome

SMALL = ("simplify", "quantize-static", "quantize-dynamic")


def test_a_file_with_external_data_is_taken_as_it_is(tmp_path: Path) -> None:
    """Optimum and Olive write weights beside the graph."""
    proto = graphs.cnn().to_proto()
    path = tmp_path / "model.onnx"
    onnx.save_model(
        proto, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    outcome = optimize(
        path,
        arrays(60),
        constraints=LOOSE,
        measure=fast_int8,
        passes=("simplify", "quantize-static"),
    )
    save_outcome(outcome, tmp_path / "out")
    saved = onnx.load(tmp_path / "out" / "model.onnx")
    assert {p.key for p in saved.metadata_props} >= {"trimtab.lineage"}


def test_what_is_no_model_and_no_data_is_refused() -> None:
    from trimtab.core.errors import OptionError

    with pytest.raises(OptionError, match="model of type int"):
        optimize(3, arrays(60))
    with pytest.raises(OptionError, match="data of type int"):
        optimize(graphs.cnn(), 3)
