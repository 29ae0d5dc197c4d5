"""int8 for ARM, made on an x64 machine: what is fused there must be seen here."""

from __future__ import annotations

import graphs
import numpy as np

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import INT8_ALLOWED, SessionConfig
from trimtab.core.target import Target
from trimtab.passes import QuantizeStatic
from trimtab.runtime_bench.doctor.diagnose import diagnose


def test_the_whole_graph_is_int8_and_the_doctor_reports_it():
    target = Target.named("arm64")
    x = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    step = QuantizeStatic(data=Dataset.of_arrays({"x": x}), min_share=0.99)
    made = step(graphs.cnn(), Context(target=target))
    notes = made.lineage[-1].notes
    assert notes["activation"] == "int8"
    assert notes["int8_share"] == 1.0
    assert not notes["float_nodes"]
    found = diagnose(made, random_feeds(made), target=target, profiled=False)
    assert found.facts.share.int8_share == 1.0


def test_the_entry_is_for_other_machines_alone():
    assert not SessionConfig.with_fusions_of(Target.detect()).config
    abroad = SessionConfig.with_fusions_of(Target.named("arm64")).config
    assert set(abroad) <= {INT8_ALLOWED}
