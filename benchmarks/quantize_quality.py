"""Quality, size and speed of int8: ours and other tools' best settings, on the same files and data.

    python benchmarks/quantize_quality.py [--networks resnet20 minilm] [--eval 5000] [--seconds 60]
        [--peers-python PYTHON] [--peer NAME=NETWORK=FILE ...] [--keep FOLDER]

Top-1 on the evaluation images, or Spearman on the development pairs of STS-B, with the paired
standard error of the drop; latency as a ratio to float, all models interleaved in one run on one
thread, one image or 128 tokens. Calibration: evenly spaced training images or sentences. `ours` is
`trimtab quantize` with nothing but those. NNCF, Quark and onnxsim run in the Python that
--peers-python names (see peers.py); one that is not installed there has a row that says so. A model
made elsewhere can be given with --peer, and is measured like the others.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from finetune_data import cifar, network

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import RunError, TrimtabError
from trimtab.core.metric import Quality, evaluate
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
from trimtab.runtime_bench.measure.compare import compare

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ("resnet20", "resnet56", "mobilenet_v2", "minilm")
#: Tools of peers.py.
PEERS = ("nncf", "quark", "onnxsim", "olive")
#: Runs of the model that calibrate a peer at most; a run is one image, or 32 sentences.
PEER_RUNS = 512


class Task:
    """A network with its data and its metric."""

    def __init__(self, name: str, samples: int, images: int | None) -> None:
        self.name, self.is_text = name, name == "minilm"
        if self.is_text:
            sys.path.insert(0, str(ROOT))
            from examples import minilm
            from trimtab.exporter import export

            self.model = export(minilm.encoder(), name="minilm")
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


def readers(data: Dataset) -> Iterator[dict[str, np.ndarray]]:
    for batch in data if data.source.batched else data.sized(1):
        yield dict(batch.feeds)


def onnxruntime_dynamic(task: Task, folder: Path) -> Model:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = task.simple.save(folder / "float.onnx")
    quantize_dynamic(source, folder / "made.onnx", per_channel=True, weight_type=QuantType.QInt8)
    return Model.load(folder / "made.onnx")


def onnxruntime_static(task: Task, folder: Path) -> Model:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.stream = readers(task.data)

        def get_next(self):
            return next(self.stream, None)

    quantize_static(
        task.simple.save(folder / "float.onnx"),
        folder / "made.onnx",
        Reader(),
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
    for number, arrays in zip(range(PEER_RUNS), readers(task.data), strict=False):
        np.savez(feeds / f"{number:05d}.npz", **arrays)
    source, out = task.simple.save(folder / "float.onnx"), folder / "made.onnx"
    command = [python, str(ROOT / "benchmarks" / "peers.py"), tool, str(source), str(feeds)]
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
    """The model of a tool, or why there is none."""
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


def one(name: str, args: argparse.Namespace) -> None:
    task = Task(name, args.samples, args.eval)
    base = evaluate(task.model, task.unseen, task.metric)
    print(f"FIGURE quality.{name}.float {base.metric}={base.value:.4f} n={base.count}", flush=True)
    models: dict[str, Model] = {}
    found = peers(args.peer, name)
    for way in args.ways:
        model = made(way, task, args.peers_python or "", args.keep)
        if isinstance(model, str):
            print(f"missing quality.{name}.{way}: {model}", flush=True)
        else:
            models[way] = model
    models |= found
    drops = {way: quality(task, model, base) for way, model in models.items()}
    ratios = speed(task, models, args.seconds)
    for way, model in models.items():
        size = model.size_bytes / 1e6
        print(f"FIGURE quality.{name}.{way} {drops[way]} {ratios[way]} mb={size:.2f}", flush=True)


def quality(task: Task, model: Model, base: Quality) -> str:
    found = evaluate(model, task.unseen, task.metric)
    drop, error = found.drop_from(base)
    spread = "" if error is None else f" se={error:.4f}"
    return f"{found.metric.split(':')[-1]}={found.value:.4f} drop={drop:.4f}{spread}"


def speed(task: Task, models: dict[str, Model], seconds: float) -> dict[str, str]:
    if seconds <= 0 or not models:
        return dict.fromkeys(models, "ratio=unmeasured")
    found = compare(task.model, list(models.values()), task.feeds, max_seconds=seconds)
    return {
        way: f"ratio={c.ratio:.2f} [{c.low:.2f}, {c.high:.2f}]"
        if math.isfinite(c.ratio)
        else f"ratio=unmeasured ({c.error})"
        for way, c in zip(models, found, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, *PEERS], default=[*WAYS, *PEERS])
    parser.add_argument(
        "--samples", type=int, default=512, help="images or sentences to calibrate on"
    )
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--seconds", type=float, default=120.0, help="of measurement a network")
    parser.add_argument("--peer", nargs="*", default=[], metavar="NAME=NETWORK=FILE")
    parser.add_argument("--peers-python", help="a Python that has nncf, amd-quark and onnxsim")
    parser.add_argument("--keep", type=Path, help="existing folder for the models that are made")
    args = parser.parse_args()
    for name in args.networks:
        one(name, args)


if __name__ == "__main__":
    main()
