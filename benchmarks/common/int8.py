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
from trimtab.passes.base import Pass

from .data import cifar, minilm, network
from .peers import TOOLS

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
            self.data, self.unseen = cifar("train", 20_000).take(samples), cifar("eval", images)
            self.metric = "top1"
            self.feeds = dict(next(iter(self.unseen.take(1).sized(1))).feeds)
        self.ctx = Context(target=Target.detect(threads=1), data=self.data)
        self.simple = Simplify()(self.model, self.ctx)


#: Function that makes int8 of a task's network, with a folder for files.
Way = Callable[[Task, Path], Model]


def runs(data: Dataset) -> Iterator[dict[str, np.ndarray]]:
    for batch in data if data.source.batched else data.sized(1):
        yield dict(batch.feeds)


def onnxruntime(tool: str) -> Way:
    """Return a quantizer of onnxruntime as peers.py calls it, run in this process."""

    def make(task: Task, folder: Path) -> Model:
        source, out = task.simple.save(folder / "float.onnx"), folder / "made.onnx"
        TOOLS[tool](source, list(runs(task.data)), out, task.is_text)
        return Model.load(out)

    return make


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


def ours(step: Pass) -> Way:
    return lambda task, _folder: step(task.simple, task.ctx)


def refined(refine: type[CorrectBias | RoundWeights]) -> Way:
    """Return static int8 that a pass refines towards the float model."""

    def make(task: Task, folder: Path) -> Model:
        reference = str(task.simple.save(folder / "float.onnx"))
        return refine(reference=reference)(QuantizeStatic()(task.simple, task.ctx), task.ctx)

    return make


WAYS: dict[str, Way] = {
    "onnxruntime-dynamic": onnxruntime("onnxruntime-dynamic"),
    "onnxruntime-static": onnxruntime("onnxruntime-minmax"),
    "ours": ours(QuantizeAuto()),
    "ours-static": ours(QuantizeStatic()),
    "ours-static-correct-bias": refined(CorrectBias),
    "ours-static-round-weights": refined(RoundWeights),
    "ours-dynamic": ours(QuantizeDynamic()),
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
