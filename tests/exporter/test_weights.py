"""Modules by name and weights from files; a file never runs code."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trimtab.core.errors import InputError
from trimtab.exporter import load_module, load_weights


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def write_plain(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def write_nested(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": state}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def write_parallel(state: dict[str, torch.Tensor], path: Path) -> Path:
    return write_plain({f"module.{name}": tensor for name, tensor in state.items()}, path)


def write_safetensors(state: dict[str, torch.Tensor], path: Path) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


@pytest.mark.parametrize("write", [write_plain, write_nested, write_parallel, write_safetensors])
def test_weights_are_loaded(write: Callable[..., Path], tmp_path: Path) -> None:
    source, target = net(), net()
    load_weights(target, write(source.state_dict(), tmp_path / "weights"))
    assert same_weights(source, target)


def test_batch_counters_may_be_missing_as_in_older_checkpoints(tmp_path: Path) -> None:
    source, target = net(), net()
    state = {n: t for n, t in source.state_dict().items() if "num_batches" not in n}
    load_weights(target, write_safetensors(state, tmp_path / "weights"))
    assert same_weights(source, target)


class Bomb:
    """Pickles as a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return Path.touch, (self.mark,)


def test_a_pickle_with_code_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pt"
    torch.save({"0.weight": torch.zeros(3, 4), "payload": Bomb(mark)}, path)
    with pytest.raises(InputError, match="could run code from the file, so it is refused"):
        load_weights(net(), path)
    assert not mark.exists()


def test_a_bare_pickle_with_code_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError, match="could run code"):
        load_weights(net(), path)
    assert not mark.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(InputError, match=r"torch\.save\(module\.state_dict\(\), path\)"):
        load_weights(net(), tmp_path / "whole.pt")


def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    target = net()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    state = net().state_dict()
    state["2.bias"] = state.pop("0.bias")
    state["1.weight"] = torch.zeros(7)
    with pytest.raises(InputError) as caught:
        load_weights(target, write_plain(state, tmp_path / "weights"))
    message = str(caught.value)
    assert "missing: 0.bias" in message
    assert "unexpected: 2.bias" in message
    assert "1.weight [7] instead of [3]" in message
    assert all(torch.equal(before[n], t) for n, t in target.state_dict().items())


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_truncated_file_is_one_message(name: str, tmp_path: Path) -> None:
    whole = write_plain if name.endswith(".pt") else write_safetensors
    path = whole(net().state_dict(), tmp_path / "weights")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=name):
        load_weights(net(), path)


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_weights(net(), tmp_path / "nowhere.pt")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(InputError, match=r"'\.h5'"):
        load_weights(net(), tmp_path / "weights.h5")


def test_a_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "log.pt")
    with pytest.raises(InputError, match="no state dict"):
        load_weights(net(), tmp_path / "log.pt")


SOURCE = """
from torch import nn
instance = nn.Linear(2, 2)
class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)
def factory():
    return nn.Linear(4, 4)
def number():
    return 7
def needy(size):
    return nn.Linear(size, size)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"code_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(("name", "size"), [("instance", 2), ("Net", 3), ("factory", 4)])
def test_a_module_by_name(name: str, size: int, code: str) -> None:
    module = load_module(f"{code}:{name}")
    assert isinstance(module, nn.Linear)
    assert module.in_features == size


def test_a_module_by_name_with_weights(code: str, tmp_path: Path) -> None:
    wanted = nn.Linear(4, 4)
    path = write_safetensors(wanted.state_dict(), tmp_path / "weights")
    assert same_weights(wanted, load_module(f"{code}:factory", path))


def test_a_callable_that_returns_no_module_is_refused(code: str) -> None:
    with pytest.raises(InputError, match=r"returned a int, not a torch\.nn\.Module"):
        load_module(f"{code}:number")
    with pytest.raises(InputError, match="called without arguments"):
        load_module(f"{code}:needy")
    with pytest.raises(InputError, match="Did you mean 'factory'"):
        load_module(f"{code}:factry")
