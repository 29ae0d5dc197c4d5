"""A net under a change that must not change behaviour: what passes write, and what users read.

    python tests/refactoring_net.py --write before.json       # on the code as it was
    python tests/refactoring_net.py --against before.json     # after each step of the change

Digests are of graph and weights with the lineage left out. They hold on one machine: ranges and
repairs differ in the last bit between kinds of CPUs, so no golden file is committed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import graphs
import numpy as np

from trimtab.cli import main as command_line
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import TrimtabError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.target import Target
from trimtab.passes import ALIASES, registry

#: Of each pass, fields further than its defaults that lead through other code.
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "quantize-static": (
        {"ranges": "percentile"},
        {"ranges": "minmax", "scales": "mse"},
        {"max_drop": 0.01},
        {"per_channel": False},
    ),
    "prune-channels": (
        {"ratio": 0.3, "importance": "l1", "repair": "none"},
        {"macs": 0.6},
        {"latency": 0.9},
        {"importance": "taylor"},
    ),
    "prune-magnitude": ({"pattern": "2:4"},),
    "quantize-dynamic": ({"convs": True},),
    "quantize-weights": ({"bits": 4}, {"method": "gptq"}),
}
TARGETS = ("x64-avx512-vnni", "x64-avx2", "arm64")
NETWORKS = ("resnet20", "text_encoder", "digits_cnn")


class EvenClock:
    """A clock that finds all models equally fast."""

    def compare(self, *_: Any) -> Any:
        """No difference."""
        from trimtab.core.context import Ratio

        return Ratio(1.0, 0.99, 1.01)

    def median_ns(self, models: Any, *_: Any) -> list[float]:
        """The same time for each."""
        return [1000.0] * len(models)


def context(model: Model, target: str) -> Context:
    """Eight batches of random rows."""
    runs = [random_feeds(model, seed=s, sizes={"batch": 4, "length": 6}) for s in range(8)]
    feeds = {name: np.concatenate([r[name] for r in runs]) for name in runs[0]}
    batch = model.inputs[0].shape[0]
    data = Dataset.of_arrays(feeds, batch=batch if isinstance(batch, int) else 4)
    return Context(target=Target.named(target), data=data, seed=7, clock=EvenClock())


def network(name: str) -> Callable[[], Model]:
    """A reference network with random weights, exported."""

    def make() -> Model:
        import torch

        from trimtab import models
        from trimtab.exporter import export

        torch.manual_seed(0)
        module = models.build(name).eval()
        return export(module, module.example_inputs())

    return make


def sources(*, quick: bool) -> Iterator[tuple[str, Model]]:
    """The contract's graphs, then the reference networks."""
    for name in ("cnn", "mlp", "transformer"):
        yield name, getattr(graphs, name)()
    if quick:
        return
    for name in NETWORKS:
        yield name, network(name)()


def outcome(make: Callable[[], Model]) -> str:
    """Digest of the model that comes out, or the refusal."""
    try:
        after = make()
    except TrimtabError as error:
        return f"{type(error).__name__}: {error}"
    return after.digest


def pass_digests(*, quick: bool) -> Iterator[tuple[str, str]]:
    """Yield the digest of what every pass writes."""
    for name, model in sources(quick=quick):
        yield f"export {name}", model.digest
        for pass_name, kind in registry().items():
            for target in TARGETS if name in {"cnn", "mlp", "transformer"} else TARGETS[:1]:
                for fields in ({}, *VARIANTS.get(pass_name, ())):
                    label = f"{pass_name} {json.dumps(fields)} on {name} for {target}"

                    def make(kind=kind, fields=fields, model=model, target=target) -> Model:
                        return kind.from_json(fields)(model, context(model, target))

                    yield label, outcome(make)
            print(f"{name}: {pass_name}", file=sys.stderr)  # noqa: T201


def printed(*arguments: str) -> str:
    """Return what a command prints."""
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        contextlib.suppress(SystemExit),
    ):
        command_line(list(arguments))
    return out.getvalue()


def commands() -> list[str]:
    """Names of all commands, passes included."""
    from trimtab.commands.registry import names

    return [*names(), *registry()]


def helps() -> Iterator[tuple[str, str]]:
    """Yield digests of what `--help` says."""
    for arguments in [["--help"], ["passes"], *([name, "--help"] for name in commands())]:
        text = printed(*arguments)
        yield " ".join(arguments), hashlib.sha256(text.encode()).hexdigest()


def keys_of(value: Any, prefix: str = "") -> set[str]:
    """Paths of a document's keys, list positions aside."""
    if isinstance(value, dict):
        return {
            p for k, v in value.items() for p in {f"{prefix}/{k}"} | keys_of(v, f"{prefix}/{k}")
        }
    if isinstance(value, list):
        return {p for v in value for p in keys_of(v, f"{prefix}[]")}
    return set()


def documents() -> Iterator[tuple[str, Any]]:
    """Keys of the JSON documents that commands write."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = graphs.cnn()
        model.save(folder / "float.onnx")
        rng = np.random.default_rng(0)
        x = rng.standard_normal((64, 3, 8, 8)).astype(np.float32)
        np.savez(folder / "data.npz", x=x, labels=rng.integers(0, 4, 64))
        float_, data = str(folder / "float.onnx"), str(folder / "data.npz")
        int8 = str(folder / "int8.onnx")
        printed("quantize-static", float_, "-o", int8, "--data", data)
        (folder / "gate.yaml").write_text(
            f"model: {int8}\nbaseline: {float_}\ndata: {data}\nmetric: top1\nthreads: 1\n"
            "budgets: {p95: 5s, speedup: 0.01, size: 4MB, drop: 0.9}\n"
        )
        for label, arguments in {
            "eval": ("eval", int8, "--data", data, "--reference", float_),
            "bench": ("bench", float_, int8, "--shape", "x=1x3x8x8", "--max-time", "2s"),
            "gate": ("gate", str(folder / "gate.yaml")),
            "doctor": ("doctor", int8, "--baseline", float_, "--data", data),
        }.items():
            target = folder / f"{label}.json"
            said = printed(*arguments, "--json", str(target))
            found = keys_of(json.loads(target.read_text())) if target.exists() else {said}
            # What a machine tells of its noise depends on how long the run was.
            yield label, sorted({k.replace(place, "") for k in found if "/facts/" not in k})


def gather(*, quick: bool) -> dict[str, Any]:
    """Everything that must stay as it is."""
    return {
        "digests": dict(pass_digests(quick=quick)),
        "helps": dict(helps()),
        "documents": dict(documents()),
    }


def differences(before: dict[str, Any], after: dict[str, Any], parts: list[str]) -> list[str]:
    """One line for each thing that changed."""
    return [
        f"{part}: {name}: {_change(before[part].get(name), after[part].get(name))}"
        for part in parts
        for name in sorted({*before[part], *after[part]})
        if before[part].get(name) != after[part].get(name)
    ]


def _renamed(name: str) -> str:
    """The label under the present name of its pass."""
    first, _, rest = name.partition(" ")
    return f"{ALIASES.get(first, first)} {rest}"


def _change(before: Any, after: Any) -> str:
    if isinstance(before, list) and isinstance(after, list):
        return f"lost {sorted({*before} - {*after})}, gained {sorted({*after} - {*before})}"
    return f"{before} became {after}"


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--quick", action="store_true", help="the contract's graphs alone")
    parser.add_argument("--parts", nargs="+", default=["digests", "helps", "documents"])
    args = parser.parse_args()
    found = gather(quick=args.quick)
    if args.write:
        args.write.write_text(json.dumps(found, indent=1) + "\n")
    if not args.against:
        return 0
    before = json.loads(args.against.read_text())
    before["digests"] = {_renamed(name): digest for name, digest in before["digests"].items()}
    if args.quick:
        before["digests"] = {k: v for k, v in before["digests"].items() if k in found["digests"]}
    wrong = differences(before, found, args.parts)
    print("\n".join([*wrong, f"{len(wrong)} differences"]))  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
