"""Int8 by us and by other tools, of networks with their data and their metric."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import RunError, TrimtabError
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import (
    CorrectBias,
    QuantizeAuto,
    QuantizeDynamic,
    QuantizeStatic,
    RoundWeights,
    Simplify,
)

from .data import cifar, minilm, network
from .peers import reader

NETWORKS = ("resnet20", "resnet56", "mobilenet_v2", "minilm")
PEERS_SCRIPT = Path(__file__).with_name("peers.py")
#: Tools of that script.
PEERS = ("nncf", "quark", "onnxsim", "olive")
#: Runs of the model that calibrate a peer at most; a run is one image, or 32 sentences.
PEER_RUNS = 512


class Task:
    """A network with its data and its metric."""

    def __init__(self, name: str, samples: int, images: int | None) -> None:
        self.name, self.is_text = name, name == "minilm"
        if self.is_text:
            self.model = minilm()
            # A stream's item is a batch of 32 sentences.
            self.data = Dataset.open("examples.minilm:stsb_train").take(max(samples // 32, 1))
            self.unseen = Dataset.open("examples.minilm:stsb_dev")
            self.metric = "examples.minilm:spearman"
            rng = np.random.default_rng(0)
            ids = rng.integers(1000, 29000, (1, 128), dtype=np.int64)
            self.feeds = {"input_ids": ids, "attention_mask": np.ones((1, 128), np.int64)}
        else:
            self.model = network(name)
            self.data, self.unseen, self.metric = (
                cifar("train", 20_000),
                cifar("eval", images),
                "top1",
            )
            self.data = self.data.take(samples)
            self.feeds = dict(next(iter(self.unseen.take(1).sized(1))).feeds)
        self.ctx = Context(target=Target.detect(threads=1), data=self.data)
        self.simple = Simplify()(self.model, self.ctx)


def runs(data: Dataset) -> Iterator[dict[str, np.ndarray]]:
    for batch in data if data.source.batched else data.sized(1):
        yield dict(batch.feeds)


def onnxruntime_dynamic(task: Task, folder: Path) -> Model:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = task.simple.save(folder / "float.onnx")
    quantize_dynamic(source, folder / "made.onnx", per_channel=True, weight_type=QuantType.QInt8)
    return Model.load(folder / "made.onnx")


def onnxruntime_static(task: Task, folder: Path) -> Model:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        task.simple.save(folder / "float.onnx"),
        folder / "made.onnx",
        reader(runs(task.data)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm"] if task.is_text else None,
    )
    return Model.load(folder / "made.onnx")


def peer(tool: str, task: Task, folder: Path, python: str) -> Model:
    feeds = folder / "feeds"
    feeds.mkdir()
    for number, arrays in zip(range(PEER_RUNS), runs(task.data), strict=False):
        np.savez(feeds / f"{number:05d}.npz", **arrays)
    source, out = task.simple.save(folder / "float.onnx"), folder / "made.onnx"
    command = [python, str(PEERS_SCRIPT), tool, str(source), str(feeds)]
    done = subprocess.run(
        [*command, str(out), *(["--text"] if task.is_text else [])],
        capture_output=True,
        text=True,
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        check=False,
    )
    if done.returncode or not out.exists():
        lines = done.stderr.strip().splitlines() or ["it wrote no model"]
        raise RunError(lines[-1][:200], where=tool)
    return Model.load(out)


def auto(task: Task, folder: Path) -> Model:  # noqa: ARG001
    return QuantizeAuto()(task.simple, task.ctx)


def static(task: Task, folder: Path) -> Model:  # noqa: ARG001
    return QuantizeStatic()(task.simple, task.ctx)


def corrected(task: Task, folder: Path) -> Model:
    reference = str(task.simple.save(folder / "float.onnx"))
    return CorrectBias(reference=reference)(static(task, folder), task.ctx)


def rounded(task: Task, folder: Path) -> Model:
    made = static(task, folder)
    reference = str(task.simple.save(folder / "float.onnx"))
    return RoundWeights(reference=reference)(made, task.ctx)


def dynamic(task: Task, folder: Path) -> Model:  # noqa: ARG001
    return QuantizeDynamic()(task.simple, task.ctx)


WAYS: dict[str, Callable[[Task, Path], Model]] = {
    "onnxruntime-dynamic": onnxruntime_dynamic,
    "onnxruntime-static": onnxruntime_static,
    "ours": auto,
    "ours-static": static,
    "ours-static-correct-bias": corrected,
    "ours-static-round-weights": rounded,
    "ours-dynamic": dynamic,
}


def made(way: str, task: Task, peers_python: str = "", keep: Path | None = None) -> Model | str:
    """Return the model of a tool, or why there is none."""
    if way in PEERS and not peers_python:
        return "no --peers-python is given"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        try:
            if way in PEERS:
                model = peer(way, task, folder, peers_python)
            else:
                model = WAYS[way](task, folder)
            print(f"made {task.name}.{way} in {time.perf_counter() - start:.0f} s", flush=True)
            if keep:
                model.save(keep / f"{task.name}-{way}.onnx")
        except TrimtabError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a peer's failure is a row of its own
            return f"{type(error).__name__}: {str(error)[:200]}"
        return Model.from_proto(model.to_proto(), way)  # nothing stays mapped to the folder


def peers(given: list[str], name: str) -> dict[str, Model]:
    parts = [text.split("=", 2) for text in given]
    return {tool: Model.load(path) for tool, network_name, path in parts if network_name == name}
