"""Notes of a pass as lines that a person reads."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.report.notes import LONGEST, note_lines

#: What Python prints of lists, mappings and texts inside of them.
RAW = re.compile(r"[\[{]['\"\d\[{]|': |True|False|None")
LONG = "model/" + "block/" * 60 + "MatMul"


def test_many_layers_left_float_are_counted_with_the_reason_and_the_first_names() -> None:
    names = [f"layer{i}" for i in range(200)]
    mixed = {
        "metric": "fidelity",
        "drop": 0.0125,
        "float": names[:38],
        "curve": [{"float": n, "drop": 0.1} for n in (0, 38)],
        "ranking": [[name, 0.5] for name in names],
    }
    declined = [[name, "int8 would cost the metric too much"] for name in names[:38]]
    notes = {
        "mixed": mixed,
        "declined": declined,
        "float_nodes": [*declined, ["last", "no kernel"]],
    }
    assert note_lines(notes) == [
        "mixed precision: 38 of 200 layers stay float; fidelity falls by 0.0125 (2 mixtures tried)",
        "left alone (39):",
        "  38: int8 would cost the metric too much",
        "    layer0, layer1, layer2 and 35 more",
        "  last: no kernel",
    ]


@pytest.mark.parametrize(
    ("notes", "lines"),
    [
        ({"macs": [7520896, 2580640]}, ["multiply-accumulates: 7,520,896 -> 2,580,640"]),
        ({"gzip_bytes": [261869, 51524]}, ["compressed by gzip: 262 kB -> 51.5 kB"]),
        ({"items": [115, 13]}, ["items to train on, and to judge on: 115, 13"]),
        (
            {"weight_bytes_before": 281656, "weight_bytes": 140000},
            ["weights: 282 kB -> 140 kB"],
        ),
        ({"quantized": {"Gather": 1, "MatMul": 3}}, ["quantized: Gather 1, MatMul 3"]),
        ({"ops": {"Flatten": [0, 1]}}, ["operators:", "  Flatten: 0 -> 1"]),
        (
            {"layers": {"w": {"values": 16, "relative_rms_error": 0.075}}},
            [
                "layers:",
                "  name  values  relative RMS error",
                "  ----  ------  ------------------",
                "  w         16               0.075",
            ],
        ),
        (
            {
                "activation": "uint8",
                "weight": "int8",
                "reduce_range": True,
                "int8_ops": 5,
                "float_ops": 2,
                "leftover_qdq": 1,
                "int8_share": 0.9553,
            },
            [
                "in int8: 5 of 7 operators, 95.5% of the multiply-accumulates; "
                "1 conversion to and from float",
                "types: activations uint8, weights int8 of 7 bits",
            ],
        ),
        ({"data": "27813cb39c7265ea1059d38f4962c883"}, []),
    ],
)
def test_a_note_has_its_unit_and_both_ends_of_a_change(
    notes: dict[str, object], lines: list[str]
) -> None:
    assert note_lines(notes) == lines


VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.just(LONG)
    | st.none()
    | st.text("ab ", max_size=400),
    lambda inner: (
        st.lists(inner, max_size=30)
        | st.dictionaries(st.sampled_from(["a", "float_ops", LONG]), inner)
    ),
    max_leaves=30,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["mixed", "ranking", "steps", "curve", "own"]), VALUES))
def test_no_note_of_any_pass_is_a_long_line_or_written_as_python_writes_it(
    notes: dict[str, object],
) -> None:
    lines = note_lines(notes)
    assert max(map(len, lines), default=0) <= LONGEST
    assert [line for line in lines if RAW.search(line)] == []
