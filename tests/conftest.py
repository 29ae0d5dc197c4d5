"""Fixtures of all tests, and a header that names the class of CPU they run on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cnn_data import arrays
from graphs import cnn
from minilm import example

from trimtab.core.cache import VARIABLE
from trimtab.core.model import Model
from trimtab.core.target import Target, cpu_flags

#: CPU flags that select onnxruntime's int8 and float kernels.
KERNEL_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make test-fast`."""
    text = "run the first case alone of each test that has several"
    parser.addoption("--first-cases", action="store_true", help=text)


@pytest.hookimpl(trylast=True)  # of the cases that -m leaves
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out all but the first case of each test, where asked to."""
    if config.getoption("first_cases"):
        first = {item.nodeid.partition("[")[0]: item for item in reversed(items)}
        kept = set(first.values())
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = reversed(first.values())


@pytest.fixture(autouse=True, scope="session")
def _no_rows_of_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep rows that tests read out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Exports of `minilm` and of reference networks by name, made once for all workers."""
    top = tmp_path_factory.getbasetemp()
    folder = (top.parent if "PYTEST_XDIST_WORKER" in os.environ else top) / "exported"

    def export_once(name: str) -> Model:
        path = folder / f"{name}.onnx"
        if not path.exists():
            from trimtab.exporter import export
            from trimtab.models import NETWORKS

            module = example().encoder() if name == "minilm" else NETWORKS[name].build()
            folder.mkdir(exist_ok=True)
            export(module, name=name).save(path)
        return Model.load(path)

    return export_once


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: small work on a busy machine is slower and less even on more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model on disk, for the command line."""
    return cnn().save(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Data for it."""
    np.savez(tmp_path / "data.npz", **arrays())
    return tmp_path / "data.npz"


def pytest_report_header() -> str:
    """Name the class of CPU: the usual reason for a failure on one machine alone."""
    target = Target.detect()
    kernels = "exact int8 sums" if target.vnni else "saturating int8 sums"
    flags = " ".join(flag for flag in KERNEL_FLAGS if flag in cpu_flags()) or "unknown"
    return f"cpu: {target.isa}, {kernels}, {target.threads} usable, flags: {flags}"
