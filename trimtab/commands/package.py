"""Package a model for a phone, a web page or a server: a folder to deploy from.

It has the model, the operators and types that a reduced runtime must have (read from the graph that
really runs there, with what the optimizer puts in), session options, samples of code in several
languages that load and feed it with the preparation that was recorded, checksums, sizes of model
and runtime, lineage, and an example with the outputs expected, by which each sample checks itself.
MODEL is a file, or the folder that `optimize` wrote.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from trimtab.core.sources.preprocess import Preprocess

SUMMARY = "package a model for mobile, web or server, with samples of code"
EXAMPLE = "trimtab package out -o deploy --for mobile"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("model", metavar="MODEL", help=".onnx file, or the folder that optimize wrote")
    add("-o", "--output", required=True, metavar="DIR", help="folder to write")
    add("--for", dest="place", required=True, metavar="PLACE", help="mobile, web or server")
    add("--ort", action="store_true", help="ship onnxruntime's own format, for minimal builds")
    add("--data", metavar="DATA", help="row of the example (default: random), and preparation")
    add("--shape", action="append", default=[], metavar="NAME=1x3x224x224", help="input shape")
    add(
        "--threads", metavar="N", help="intra-op threads (default: those of the session file, or 1)"
    )


def execute(args: argparse.Namespace) -> int:
    """Write the folder and print what is in it."""
    from dataclasses import replace
    from pathlib import Path

    from trimtab.core.ort.feeding import FeedSource, feeding
    from trimtab.core.ort.given_feeds import usual_feeding
    from trimtab.core.text import bytes_text, counted
    from trimtab.core.units import count, shape

    from ..open_model import open_model
    from ..packaging.folder import Package, write_package
    from ..packaging.places import place_of
    from ..session_file import session_config

    place = place_of(args.place)
    path, spec = _found(Path(args.model), args.data)
    model = open_model(path)
    config = session_config(path if path.is_file() else model)
    threads = count(args.threads, "--threads")
    config = replace(config, threads=threads or config.threads)
    if spec:
        from trimtab.core.batches import items_of
        from trimtab.core.dataset import Dataset

        fed = feeding(model, FeedSource(items=items_of(model, Dataset.open(spec)), name=spec))
    else:
        fed = usual_feeding(model, dict(shape(text) for text in args.shape))
    package = Package(model, place, fed.feeds, config, _preparation(spec), args.ort)
    manifest = write_package(package, Path(args.output))
    sizes = manifest["sizes"]
    print(f"{args.output}: {manifest['model']}, {bytes_text(sizes['model'])}, for {place.name}")  # noqa: T201
    for name, size in sizes["runtime"].items():
        print(f"  runtime: {name} {bytes_text(size)} ({sizes['of']})")  # noqa: T201
    print(f"  {counted(len(manifest['operators']), 'operator')}: required_operators.config")  # noqa: T201
    for name, known in manifest["samples"].items():
        print(f"  {name}: {known['ran']}")  # noqa: T201
    return 0


def _found(given: Path, data: str | None) -> tuple[Path, str | None]:
    """Return the file of the model and the data; of a folder those that its budgets name."""
    if not given.is_dir():
        return given, data
    from trimtab.core.errors import TrimtabError
    from trimtab.runtime_bench.gate.budget_file import load_gates

    budgets = given / "budgets.yaml"
    if data is None and budgets.is_file():
        try:
            data = load_gates(budgets)[0].data
        except TrimtabError:
            data = None  # what they name is on another machine: random inputs serve
    return given / "model.onnx", data


def _preparation(spec: str | None) -> Preprocess | None:
    """Return the preparation of pictures that the name of the data has; None without one."""
    from trimtab.core.sources.opening import options_of
    from trimtab.core.sources.preprocess import Preprocess

    kinds = Preprocess.__dataclass_fields__
    told = {k: v for k, v in options_of(spec or "").items() if k in kinds}
    return Preprocess.of(told, "--data") if told else None
