"""Reading and checking of ONNX files."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from .errors import ModelError
from .sparse import densify, graphs_of


def load_ir(path: Path) -> ir.Model:
    """Read, validate and return the graph of an `.onnx` file; weights stay memory-mapped.

    Raises:
        ModelError: see `Model.load`.
    """
    proto = _parse(path)
    check_external_data(proto, path)
    model = ir.from_proto(densify(proto, path.parent.resolve()))
    ir.external_data.set_base_dir(model.graph, path.parent.resolve())
    return model


def _parse(path: Path) -> onnx.ModelProto:
    where = str(path)
    if not path.exists():
        hint = f"Files there: {_siblings(path)}" if path.parent.is_dir() else "Check the path"
        raise ModelError("no such file", where=where, hint=hint)
    if path.is_dir():
        raise ModelError("is a folder", where=where, hint="Name the .onnx file in it")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=where) from error
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError(
            "is not an ONNX model, or is truncated",
            where=where,
            hint="Export or download it again; `python -m onnx.checker` shows more",
        ) from error
    if not proto.graph.node and not proto.graph.output:
        raise ModelError(
            "is not an ONNX model: it has no graph",
            where=where,
            hint="trimtab reads .onnx files; a PyTorch model is named as module:callable",
        )
    return proto


def check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse external data that is missing, too short, or outside of the model's folder.

    A location outside could make the reader disclose any file of the user's, so it is refused
    even where the file exists (ONNX external-data specification; CVE-2022-25882, CVE-2024-27318).
    """
    folder = path.parent.resolve()
    for tensor in _external_tensors(proto):
        entry = {e.key: e.value for e in tensor.external_data}
        location = entry.get("location", "")
        where = f"{path}, tensor {tensor.name!r}"
        file = Path(os.path.realpath(folder / location))
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise ModelError(
                f"its external data is outside of the model's folder ({location!r})",
                where=where,
                hint="Refused, because it could read any file; keep the data beside the model",
            )
        if not file.is_file():
            raise ModelError(
                f"its external data file {location!r} is missing",
                where=where,
                hint="Copy it beside the model",
            )
        needed = int(entry.get("offset", 0)) + int(entry.get("length", 0))
        if file.stat().st_size < needed:
            raise ModelError(
                f"its external data file {location!r} is truncated "
                f"({file.stat().st_size} bytes, {needed} needed)",
                where=where,
                hint="Copy or download it again",
            )


def _external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    tensors: list[onnx.TensorProto] = []
    for graph in graphs_of(proto.graph):
        tensors += graph.initializer
        tensors += [part for t in graph.sparse_initializer for part in (t.values, t.indices)]
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        tensors += [t for a in attributes for t in (a.t, *a.tensors)]
    return [t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL]


def _siblings(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.onnx"))
    return ", ".join(names[:8]) or "no .onnx file"
