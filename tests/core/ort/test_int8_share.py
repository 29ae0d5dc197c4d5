from __future__ import annotations

import pytest
from int8_graphs import attention, chain, graph, normal

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.target import Target
from trimtab.passes.quantization.static import QuantizeStatic
from trimtab.search.speed.costs import counted

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def float_macs(model: Model, feeds: Feeds | None = None) -> int:
    return counted(model, SessionConfig(), feeds or random_feeds(model)).float_macs


def test_products_of_a_float_model_are_counted_as_float():
    share = int8_share(chain())
    assert (share.int8_ops, share.float_ops, share.int8_share) == (0, 2, 0.0)
    # Two convolutions: 12 x 12 positions, 16 x 8 channels, 3 x 3 taps each.
    assert float_macs(chain()) == 2 * 144 * 16 * 8 * 9


def test_products_of_activations_count_too():
    # q, k, v: 6 x 32 x 32 each; scores: 6 x 6 x 32; values: 6 x 32 x 6.
    assert float_macs(attention()) == 3 * 6 * 32 * 32 + 2 * 6 * 6 * 32


def test_share_is_weighted_by_multiply_accumulates():
    model = graph(
        """g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {
          [large] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          [small] y = Conv (a, w2)
        }""",
        w1=(8, 8, 3, 3),
        w2=(8, 8, 1, 1),
    )
    share = int8_share(QuantizeStatic(data=normal(model), exclude=("small",))(model, VNNI))
    assert share.int8_share == pytest.approx(0.9)
    assert share.float_nodes == ("small",)


def test_the_batch_of_the_feeds_counts():
    model = chain()
    feeds = next(iter(normal(model, rows=4))).feeds
    assert float_macs(model, feeds) == 4 * float_macs(model)
