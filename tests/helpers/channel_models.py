"""A small model and a context for the tests of structured pruning."""

from __future__ import annotations

import graphs

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.target import Target

TARGET = Target.named("x64-avx512-vnni")


def chain(c: int = 32, *, body: str = "b = Relu(a)") -> Model:
    """conv(3 -> c), relu, conv(c -> c), relu, conv(c -> 5)."""
    return graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) "
        f"<float[{c},3,3,3] w1, float[{c}] b1, float[{c},{c},3,3] w2, float[{c}] b2, "
        f"float[5,{c},1,1] w3, float[5] b3>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w1, b1) " + body + " c = Conv<pads=[1,1,1,1]>(b, w2, b2) "
        "d = Relu(c) y = Conv(d, w3, b3) }"
    )


def context(model: Model | None = None, **fields) -> Context:
    data = None
    if model is not None:
        feeds = random_feeds(model, batch=64)
        data = Dataset.of_arrays(feeds)
    return Context(target=TARGET, data=data, **fields)


def step(model: Model) -> dict:
    return dict(model.lineage[-1].notes)
