"""Deployment folder: model, what its runtime must have, samples, an example that proves it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab.core.data import Array
from trimtab.core.errors import OutputError
from trimtab.core.files import atomic_folder, check_folder, write_text, writing
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.runtime import runtime
from trimtab.core.sources.preprocess import MARGIN, Preprocess
from trimtab.core.text import bytes_text

from . import example
from .places import Destination
from .running import operators_in, ort_bytes, required_operators
from .samples import sample

SCHEMA = 1
NOT_RUN = "not run here"
#: Longest run of the sample in Python, in seconds.
_SECONDS = 120


@dataclass(frozen=True)
class Package:
    """Model to package, and how.

    Attributes:
        model: the model.
        place: place that it is for.
        feeds: inputs of the example, by name.
        config: session options that it runs with.
        preprocess: preparation of pictures; None where its inputs are not pictures.
        ort: ship onnxruntime's own format instead of the .onnx file.
    """

    model: Model
    place: Destination
    feeds: Mapping[str, Array]
    config: SessionConfig
    preprocess: Preprocess | None = None
    ort: bool = False


def write_package(package: Package, folder: Path) -> dict[str, Any]:
    """Write a deployment folder, whole or not at all, and return its manifest.

    The sample in Python is run before anything appears; its answer stands in the manifest.

    Raises:
        OutputError: the folder exists and is not empty, or cannot be written.
        InputError: an input or output is not a tensor of numbers.
        RunError: onnxruntime refuses the model or the example.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("exists and is not empty", where=str(folder), hint="Name a new folder")
    check_folder(folder.parent)
    with writing(folder), atomic_folder(folder.parent) as scratch:
        made = scratch / folder.name
        made.mkdir()
        manifest = _fill(package, made)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return manifest


def _fill(package: Package, folder: Path) -> dict[str, Any]:
    place, config = package.place, package.config
    name = "model.ort" if package.ort else "model.onnx"
    if package.ort:
        (folder / name).write_bytes(ort_bytes(package.model, config, place))
    else:
        package.model.save(folder / name)
    required = required_operators(package.model, config, place, ort=package.ort)
    write_text(folder / "required_operators.config", required)
    proof = example.tensors(package.model, package.feeds, config)
    (folder / "example").mkdir()
    for tensor in (*proof["inputs"], *proof["outputs"]):
        (folder / tensor["file"]).write_bytes(tensor.pop("bytes"))
    manifest = _manifest(package, name, proof, operators_in(required))
    samples = manifest["samples"]
    for path in samples:
        (folder / path).parent.mkdir(exist_ok=True)
        write_text(folder / path, sample(path, manifest))
    manifest["checksums"] = _checksums(folder, [name, "required_operators.config"])
    manifest["sizes"] = _sizes(folder, name, place)
    text = json.dumps(manifest, indent=1) + "\n"
    write_text(folder / "manifest.json", text)
    samples["python/run.py"]["ran"] = _ran(folder)
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    write_text(folder / "README.md", _readme(manifest))
    return manifest


def _manifest(
    package: Package, name: str, proof: Mapping[str, Any], operators: list[str]
) -> dict[str, Any]:
    config = package.config
    return {
        "schema": SCHEMA,
        "kind": "package",
        "for": package.place.name,
        "model": name,
        "digest": package.model.digest,
        "made_by": f"trimtab {version('trimtab')}, onnxruntime {runtime().__version__}",
        "runtime": package.place.runtime,
        **proof,
        "tolerance": example.tolerance(package.model),
        "preprocess": _preparation(package.preprocess),
        "session": {
            "threads": config.threads,
            "level": config.level,
            "config": {k: str(v) for k, v in config.config.items()},
        },
        "operators": operators,
        "samples": {
            path: {"how": how, "ran": NOT_RUN} for path, how in package.place.samples.items()
        },
        "lineage": [step.to_json() for step in package.model.lineage],
    }


def _preparation(how: Preprocess | None) -> dict[str, Any] | None:
    if how is None:
        return None
    size = how.size()
    way, height, width, shorter = size if size is not None else ("", None, None, None)
    sizes = {} if size is None else {"height": height, "width": width, "shorter": shorter}
    numbers = {"scale": how.scale, "mean": list(how.mean), "std": list(how.std)}
    order = {"colour": how.colour, "layout": how.layout, "margin": MARGIN}
    return {"way": way, **sizes, **numbers, **order}


def _checksums(folder: Path, names: list[str]) -> dict[str, str]:
    data = [path.name for path in folder.glob("*.data")]
    files = [*names, *data, *(f"example/{p.name}" for p in sorted((folder / "example").iterdir()))]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def _sizes(folder: Path, name: str, place: Destination) -> dict[str, Any]:
    model = sum(path.stat().st_size for path in folder.glob(f"{name}*"))
    if place.runtime_bytes:
        return {"model": model, "runtime": dict(place.runtime_bytes), "of": place.published}
    if place.name != "server":
        return {"model": model, "runtime": {}, "of": "not measured here"}
    library = Path(runtime().__file__).parent / "capi"
    files = [p for p in library.iterdir() if p.suffix in {".so", ".pyd", ".dll", ".dylib"}]
    files += [p for p in library.glob("*.so.*") if not p.is_symlink()]
    sizes = {path.name: path.stat().st_size for path in sorted(set(files))}
    return {"model": model, "runtime": sizes, "of": f"onnxruntime {runtime().__version__} here"}


def _ran(folder: Path) -> str:
    """Run the sample in Python and return what it said."""
    words = [sys.executable, str(folder / "python" / "run.py")]
    try:
        done = subprocess.run(  # noqa: S603 - a file that was written just now
            words, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"did not end in {_SECONDS} s"
    finally:
        shutil.rmtree(folder / "python" / "__pycache__", ignore_errors=True)
    said = (done.stdout + done.stderr).strip().splitlines()
    return said[-1] if said else f"ended with code {done.returncode}"


def _readme(manifest: Mapping[str, Any]) -> str:
    sizes = manifest["sizes"]
    around = ", ".join(f"{name} {bytes_text(size)}" for name, size in sizes["runtime"].items())
    samples = []
    for path, known in manifest["samples"].items():
        how = f"`{known['how']}`" if known["how"] else ""
        samples.append(f"| `{path}` | {how} | {known['ran']} |")
    return "\n".join(
        [
            f"# {manifest['model']} for {manifest['for']}",
            "",
            f"Made by {manifest['made_by']}. Runs in {manifest['runtime']}.",
            "",
            f"- `{manifest['model']}`: {bytes_text(sizes['model'])}; its runtime: "
            f"{around or 'not known'} ({sizes['of']}).",
            "- `manifest.json`: inputs, outputs, preparation of pictures, session options, "
            "checksums, and the steps that made the model.",
            "- `required_operators.config`: operators and types of the graph that runs, for a "
            "reduced build of onnxruntime (`build.py --include_ops_by_config`).",
            "- `example/`: inputs, and the outputs that they give within "
            f"{manifest['tolerance']:g} of the largest value.",
            "",
            "| sample | how | when it was packaged |",
            "|---|---|---|",
            *samples,
            "",
        ]
    )
