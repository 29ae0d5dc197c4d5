"""Export, static int8, channel pruning and training of many architectures, each in a process.

    pip install torch torchvision timm transformers segmentation-models-pytorch ultralytics
    pip install torch-pruning
    python benchmarks/networks/architectures.py --out out/architectures [--table FILE]

Without --table it runs what has no result yet, with it the results go into docs/architectures.json.
Each architecture has a limit of CPU time and a JSON file, written after each step: an interrupted
run goes on, and several may run side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import importlib
import json
import multiprocessing
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

#: Rows to calibrate and train on, and rows that int8 is compared on.
ROWS, UNSEEN = 32, 8
#: Part of the channels to remove, and the least cosine of int8 outputs.
RATIO, COSINE = 0.3, 0.98
#: CPU seconds for Torch-Pruning, which on most networks needs less than two.
OTHERS_LIMIT = 30
STEPS = ("export", "int8", "prune", "train", "torch_pruning")


def feeds_of(found: Any, rows: int) -> Any:
    """Return smooth random pictures, noise, or random ids: (rows, ...)."""
    rng = np.random.default_rng(0)
    if found.ids:
        return rng.integers(0, found.ids, (rows, *found.shape))
    made = rng.standard_normal((rows, *found.shape))
    if len(found.shape) == 3:
        coarse = rng.standard_normal((rows, found.shape[0], 8, 8))
        cells = found.shape[-1] // 8
        made = 0.3 * made + coarse.repeat(cells, axis=2).repeat(cells, axis=3)
    return made.astype(np.float32)


def trained_statistics(module: Any, x: Any) -> None:
    """Give BatchNormalization the statistics of a batch, as after training."""
    import torch
    from torch import nn

    norms = [
        m
        for m in module.modules()
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    ]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            module.train()(x)
    module.eval()


def worst_cosine(want: dict[str, Any], got: dict[str, Any]) -> float:
    """Return the least cosine over the float outputs."""
    found = [1.0]
    for name, array in want.items():
        if array.dtype.kind == "f":
            a, b = array.astype(np.float64).ravel(), got[name].astype(np.float64).ravel()
            found.append(float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30)))
    return min(found)


class Trial:
    """Steps of one architecture; each leaves its result, or the first line of its error."""

    def __init__(self, found: Any, path: Path) -> None:
        self.found, self.path = found, path
        self.results: dict[str, Any] = {"name": found.name}

    def step(self, name: str, body: Callable[[], dict[str, Any]]) -> bool:
        """Run a step and write all results so far."""
        start = time.process_time()
        self.results[name] = {"ok": False, "error": "time limit"}
        self.write()
        try:
            result = body()
        except Exception as error:  # noqa: BLE001 - each is a result
            text = str(error).strip().splitlines() or [""]
            result = {"ok": False, "error": f"{type(error).__name__}: {text[0][:200]}"}
        self.results[name] = result | {"seconds": round(time.process_time() - start, 1)}
        self.write()
        return bool(result["ok"])

    def write(self) -> None:
        """Write the results, whole or not at all."""
        scratch = self.path.with_suffix(".tmp")
        scratch.write_text(json.dumps(self.results, indent=1))
        scratch.replace(self.path)

    def run(self) -> None:
        """Build, export, quantize, prune, train; then let Torch-Pruning prune."""
        import torch

        torch.manual_seed(0)
        self.array = feeds_of(self.found, ROWS + UNSEEN)
        if not self.step("build", self._build):
            return
        if self.step("export", self._export):
            self.step("int8", self._int8)
            self.step("prune", self._prune)
            self.step("train", self._train)
        with time_limit(OTHERS_LIMIT):
            others = partial(torch_pruned, self.found, self.module, self.array[:2])
            self.step("torch_pruning", others)

    def _build(self) -> dict[str, Any]:
        import torch

        self.module = self.found.build()
        trained_statistics(self.module, torch.from_numpy(self.array[:8]))
        return {"ok": True, "parameters": sum(p.numel() for p in self.module.parameters())}

    def _export(self) -> dict[str, Any]:
        import torch

        from trimtab.core.dataset import Dataset
        from trimtab.exporter import export
        from trimtab.passes import Simplify

        self.model = self.start = export(self.module, torch.from_numpy(self.array[:2]))
        self.input = self.model.inputs[0].name
        self.simple = Simplify()(self.model)
        self.data = Dataset.of_arrays({self.input: self.array[:ROWS]})
        notes = self.model.lineage[0].notes
        error = max(row["max_rel"] for row in notes["parity"].values())
        fixed = {"fixed_batch": notes["fixed_batch"][:200]} if "fixed_batch" in notes else {}
        return {"ok": True, "parity": error, "nodes": len(self.model.graph), **fixed}

    def _int8(self) -> dict[str, Any]:
        from trimtab.core.ort.session import build_session, run
        from trimtab.passes import QuantizeStatic

        small = QuantizeStatic(data=self.data)(self.simple)
        rows = self.model.inputs[0].shape[0]
        batch = rows if isinstance(rows, int) else UNSEEN
        feeds = {self.input: self.array[ROWS : ROWS + batch]}
        cosine = worst_cosine(*(run(build_session(m), feeds) for m in (self.model, small)))
        share = small.lineage[-1].notes.get("int8_share")
        return {"ok": cosine >= COSINE, "cosine": round(cosine, 4), "int8_share": share}

    def _prune(self) -> dict[str, Any]:
        from trimtab.passes import PruneChannels

        self.start = PruneChannels(ratio=RATIO, importance="l2", repair="none")(self.simple)
        left = self.start.weight_bytes / self.model.weight_bytes
        return {"ok": left < 1, "weights_left": round(left, 3)}

    def _train(self) -> dict[str, Any]:
        from trimtab.passes import Finetune

        after = Finetune(steps=2, batch=8, data=self.data, threads=1)(self.start)
        notes = after.lineage[-1].notes
        return {"ok": notes["steps"] == 2 and notes["stopped"] == "done"}


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the body after so many CPU seconds."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no result within {seconds} CPU seconds")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def torch_pruned(found: Any, module: Any, array: Any) -> dict[str, Any]:
    """Prune with Torch-Pruning by the same share; right where outputs keep their shapes."""
    import torch
    import torch_pruning as tp
    from torch.utils import _pytree as pytree

    module, x = copy.deepcopy(module).eval(), torch.from_numpy(array)
    before = [t.shape for t in pytree.tree_leaves(module(x)) if isinstance(t, torch.Tensor)]
    size = sum(p.numel() for p in module.parameters())
    pruner = tp.pruner.MagnitudePruner(
        module,
        x,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=head_of(found, module),
    )
    pruner.step()
    with torch.no_grad():
        after = [t.shape for t in pytree.tree_leaves(module(x)) if isinstance(t, torch.Tensor)]
    left = sum(p.numel() for p in module.parameters()) / size
    return {"ok": before == after and left < 1, "weights_left": round(left, 3)}


def head_of(found: Any, module: Any) -> list[Any]:
    """Return the modules that Torch-Pruning must leave: it does not know the graph's outputs."""
    if found.head == "@classifier":
        made = module.get_classifier()
        return list(made) if isinstance(made, tuple | list) else [made]
    if found.head == "@last":
        return list(module.model[-1].modules())
    names = (found.head, "module.lm_head")
    return [m for name, m in module.named_modules() if name and name.startswith(names)]


def one(found: Any, path: Path, limit: int) -> None:
    """Run one architecture in this process, which dies after so many CPU seconds."""
    with contextlib.suppress(ValueError):  # a lower limit of the user's
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        Trial(found, path).run()


def warm_up() -> None:
    """Import and cache what all share, so that each process starts with it."""
    import torch

    from trimtab.exporter import export

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for library in (
        *("timm", "transformers.modeling_utils", "segmentation_models_pytorch"),
        *("ultralytics.nn.tasks", "torch_pruning", "trimtab.passes.training.torch_graph"),
    ):
        importlib.import_module(library)
    export(torch.nn.Linear(4, 2), torch.randn(2, 4), parity=False)
    gc.collect()
    gc.freeze()  # else each collection of a child goes through all of the libraries


def run_all(out: Path, limit: int, only: list[str]) -> None:
    """Run each architecture without a result in a process of its own."""
    from architecture_list import architectures

    out.mkdir(parents=True, exist_ok=True)
    warm_up()
    for found in architectures():
        path = out / f"{found.name.replace('/', '_')}.json"
        if path.exists() or (only and not any(o in found.name for o in only)):
            continue
        path.write_text(json.dumps({"name": found.name}))  # others that run beside take the next
        child = multiprocessing.get_context("fork").Process(target=one, args=(found, path, limit))
        child.start()
        try:
            child.join()
        except KeyboardInterrupt:
            path.unlink()
            raise
        print(line_of(json.loads(path.read_text())), flush=True)


def line_of(result: dict[str, Any]) -> str:
    """Return a row of the table."""
    return "| " + " | ".join([result["name"], *(cell(result, step) for step in STEPS)]) + " |"


def cell(result: dict[str, Any], step: str) -> str:
    """Return what a step came to in a few words."""
    found = result.get(step)
    if found is None:
        return "-"
    for key, text in (("cosine", "{:.4f}"), ("weights_left", "{:.0%}"), ("parity", "{:.0e}")):
        if key in found:
            return text.format(found[key]) + ("" if found["ok"] else " (no)")
    return "yes" if found["ok"] else "time limit" if found["error"] == "time limit" else "refused"


def table(out: Path, target: Path) -> None:
    """Write all results as one JSON file, print the table and the counts."""
    results = [json.loads(p.read_text()) for p in sorted(out.glob("*.json"))]
    results = [r for r in results if "build" in r]  # the others have only been taken
    for step in (found for r in results for found in r.values() if isinstance(found, dict)):
        step.pop("seconds", None)  # of a machine that others used too
    target.write_text(json.dumps(results, indent=1) + "\n")
    titles = ("architecture", *(step.replace("_", "-") for step in STEPS))
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    print("\n".join(line_of(r) for r in results))
    for step in STEPS:
        tried = [r[step] for r in results if step in r]
        print(f"FIGURE architectures_{step}={sum(t['ok'] for t in tried)} of {len(results)}")


def main() -> None:
    """Run, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--limit", type=int, default=180, help="CPU seconds for each architecture")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write all results there")
    args = parser.parse_args()
    if args.table:
        table(args.out, args.table)
    else:
        run_all(args.out, args.limit, args.only)


if __name__ == "__main__":
    main()
