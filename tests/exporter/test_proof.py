"""What the proof is fed, how it judges, and the range for which it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, ExportError, InputError, OptionError
from trimtab.exporter import export
from trimtab.exporter.axes import add_up, moved_sizes, sums_of
from trimtab.exporter.specs import split_ranges


def test_ranges_are_read_from_the_names_of_axes() -> None:
    names, ranges = split_ranges({"x": {0: "b", 1: "n>=5"}, "y": {0: "2 <= n <= 9"}})
    assert names == {"x": {0: "b", 1: "n"}, "y": {0: "n"}}
    assert ranges == {"n": (5, 9)}
    with pytest.raises(OptionError, match="no size"):
        split_ranges({"x": {0: "n>=5", 1: "n<=3"}})
    with pytest.raises(OptionError, match="not a valid name"):
        split_ranges({"x": {0: "n>5"}})


def test_axes_that_add_up_move_together() -> None:
    sizes = {"batch": 1, "new": 3, "past": 8, "total": 11}
    assert sums_of(sizes, {"batch"}) == {"total": ("new", "past")}
    for moved in moved_sizes(sizes, {"batch": 3}, {}):
        assert moved["total"] == moved["new"] + moved["past"]
        assert moved["batch"] == 3
    assert add_up({**sizes, "new": 1}, {"total": ("new", "past")})["total"] == 9


def test_axes_stay_within_their_ranges_and_strides_get_multiples() -> None:
    tried = list(moved_sizes({"h": 64, "w": 64}, {}, {"h": (32, 64)}))
    assert {"h": 32, "w": 32} in tried
    assert all(32 <= sizes["h"] <= 64 for sizes in tried)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :4] * 2 if x.shape[1] > 4 else F.pad(x, (0, 4 - x.shape[1])) * 3


@pytest.mark.slow
def test_an_axis_on_which_the_module_branches_is_claimed_for_its_range_only() -> None:
    axes = {"x": {0: "b", 1: "n"}}
    with pytest.raises(ExportError, match=r"proved for n>=5, it answers otherwise at 4"):
        export(Branches(), torch.randn(2, 8), dynamic=axes)
    model = export(Branches(), torch.randn(2, 8), dynamic={"x": {0: "b", 1: "n>=5"}})
    assert model.lineage[0].notes["ranges"]["n"][0] == 5


class Sharp(nn.Module):
    """Its gain grows with its input, so that rounding is all there is far out."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.layers, self.power = nn.ModuleList(nn.Linear(16, 16) for _ in range(6)), power
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(layer(x) * self.power)
        return x


@pytest.mark.slow
def test_rounding_is_judged_by_float64() -> None:
    model = export(Sharp(4.0), torch.randn(4, 16), dynamic={})
    row = model.lineage[0].notes["parity"]["output"]
    assert row["max_rel"] <= 1e-4 or row["torch_max_rel"] > 1e-5


@pytest.mark.slow
def test_nothing_is_proved_where_torch_does_not_know_the_answer() -> None:
    with pytest.raises(ExportError, match="no comparison can prove"):
        export(Sharp(400.0), torch.randn(4, 16) * 100, dynamic={})


class Seen(nn.Module):
    """Remembers what it is fed, outside of the graph."""

    fed: list[Any] = []  # noqa: RUF012 - shared on purpose

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            self.fed.append(x.clone())
        return x + 1


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_the_users_rows_are_what_the_proof_is_fed(whole: bool) -> None:
    rows = np.arange(20, dtype=np.float32).reshape(5, 4) + 1000
    Seen.fed.clear()
    data: Any = Dataset.of_arrays({"x": rows}) if whole else {"x": rows}
    export(Seen(), data=data)
    assert {tuple(x.shape) for x in Seen.fed} >= {(1, 4), (3, 4)}
    assert all(row.tolist() in rows.tolist() for x in Seen.fed for row in x)


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="no input 'y'"):
        export(Seen(), torch.randn(1, 4), data={"y": np.ones((2, 4), np.float32)})
    with pytest.raises(DataError, match="rank"):
        export(Seen(), torch.randn(1, 4), data={"x": np.ones(4, np.float32)})


class CacheLayerMixin:
    """Base class by which layers of a cache are known."""


class Layer(CacheLayerMixin):
    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values


class Cache:
    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers


class Decoder(nn.Module):
    """Appends to the cache that it is given, as transformers do."""

    def forward(self, x: Tensor, past: Cache) -> dict[str, Any]:
        for layer in past.layers:
            layer.keys = torch.cat([layer.keys, x], 1)
            layer.values = torch.cat([layer.values, x], 1)
        return {"sum": sum(layer.keys.sum(1) for layer in past.layers), "past": past}


@pytest.mark.slow
def test_a_cache_goes_in_and_out_and_stays_as_it_was() -> None:
    cache = Cache([Layer(torch.randn(1, 8, 4), torch.randn(1, 8, 4))])
    model = export(
        Decoder(),
        (torch.randn(1, 3, 4), cache),
        dynamic={"x": {1: "new"}, "past_0_keys": {1: "past"}, "past_0_values": {1: "past"}},
    )
    assert [s.name for s in model.inputs] == ["x", "past_0_keys", "past_0_values"]
    assert len(model.outputs) == 3
    assert type(cache.layers[0].keys) is Tensor
    assert cache.layers[0].keys.shape == (1, 8, 4)


class Sums(nn.Module):
    def forward(self, x: Tensor, holder: Any) -> Tensor:
        return x + holder.tensor


class Holder:
    def __init__(self) -> None:
        self.tensor = torch.ones(4)


def test_an_object_that_hides_tensors_is_refused() -> None:
    with pytest.raises(InputError, match="a Holder holds tensors"):
        export(Sums(), (torch.randn(2, 4), Holder()))
