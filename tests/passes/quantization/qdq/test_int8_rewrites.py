from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph, normal

from trimtab.core.context import Context
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.qdq.int8_rewrites import apply_int8_rewrites
from trimtab.passes.quantization.qdq.prepare import prepare
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def ints(*values):
    return np.array(values, np.int64)


def shortcut(size=9, pads=(0, 2, 0, 0, 0, 3, 0, 0), value=0.0, starts=(0,), step=2):
    return graph(
        f"""g (float[N, 4, {size}, {size}] x) => (float[N, C, H, W] y) {{
          a = Slice (x, starts, ends, rows, steps)
          b = Slice (a, starts, ends, columns, steps)
          y = Pad (b, pads, value)
        }}""",
        starts=ints(*starts),
        ends=ints(2**63 - 1),
        rows=ints(2),
        columns=ints(3),
        steps=ints(step),
        pads=ints(*pads),
        value=np.float32(value),
    )


def same(before, after, **exact):
    feeds = random_feeds(before, batch=2)
    expected, got = (next(iter(run(build_session(m), feeds).values())) for m in (before, after))
    np.testing.assert_allclose(got, expected, **exact)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("step", [2, 3])
def test_a_strided_slice_and_pad_become_one_convolution(size, step):
    before = shortcut(size=size, step=step)
    after = before.clone()
    prepare(after)
    assert apply_int8_rewrites(after) == {"shortcut-as-conv": 1}
    assert [node.op_type for node in after.graph] == ["Conv"]
    same(before, after, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"value": 1.0},
        {"pads": (0, 2, 1, 0, 0, 3, 0, 0)},
        {"pads": (0, -1, 0, 0, 0, 3, 0, 0)},
        {"starts": (1,)},
    ],
    ids=["other value", "rows too", "cut", "late start"],
)
def test_other_slices_and_pads_are_unchanged(change):
    model = shortcut(**change)
    prepare(model)
    assert apply_int8_rewrites(model) == {}
    assert len(list(model.graph)) == 3


def test_a_slice_with_other_users_stays_for_them():
    before = graph(
        """g (float[N, 4, 8, 8] x) => (float[N, C, H, W] y, float[N, 4, 4, 8] z) {
          a = Slice (x, starts, ends, rows, steps)
          z = Relu (a)
          y = Pad (a, pads)
        }""",
        starts=ints(0),
        ends=ints(8),
        rows=ints(2),
        steps=ints(2),
        pads=ints(0, 1, 0, 0, 0, 0, 0, 0),
    )
    after = before.clone()
    prepare(after)
    assert apply_int8_rewrites(after) == {"shortcut-as-conv": 1}
    assert sorted(node.op_type for node in after.graph) == ["Conv", "Relu", "Slice"]
    same(before, after, rtol=0, atol=0)


@pytest.mark.parametrize("op", ["HardSwish", "HardSigmoid", "HardSigmoid <alpha = 0.1666667>"])
def test_hard_activations_open_up_and_stay_equal(op):
    before = graph(f"g (float[N, 4, 5] x) => (float[N, 4, 5] y) {{ y = {op} (x) }}")
    after = before.clone()
    prepare(after)
    assert apply_int8_rewrites(after)["hardsigmoid-open"] == 1
    assert not {"HardSwish", "HardSigmoid"} & {node.op_type for node in after.graph}
    assert after.outputs == before.outputs
    same(before, after, atol=1e-6)


@pytest.mark.parametrize("op", ["HardSwish", "HardSigmoid"])
def test_hard_activations_run_in_int8(op):
    model = graph(
        f"""g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {{
          a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          h = {op} (a)
          y = Conv <pads = [1, 1, 1, 1]> (h, w2)
        }}""",
        w1=(8, 8, 3, 3),
        w2=(8, 8, 3, 3),
    )
    share = int8_share(QuantizeStatic(data=normal(model))(model, VNNI))
    assert (share.float_ops, share.leftover_qdq) == (0, 2)
