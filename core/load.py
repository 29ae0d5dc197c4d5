"""Reading and checking of ONNX files."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_tensor

from .checks.computed_constants import check_computed_constants
from .checks.endless_loops import check_loops
from .checks.scopes import check_scopes, sorted_nodes
from .errors import ModelError
from .maps import from_proto
from .sparse import densify, graphs_of
from .text import shape_text

#: Longest name of external data.
_LONGEST_NAME = 1000
_DAMAGED = "The file is damaged; export or download it again"
#: Most axes of a tensor, as in onnxruntime and numpy.
_MOST_AXES = 64


def load_ir(path: Path) -> ir.Model:
    """Read, validate and return the graph of an `.onnx` file; weights stay memory-mapped.

    Raises:
        ModelError: see `Model.load`.
    """
    with texts_are_valid(str(path)):
        return _load_ir(path)


def _load_ir(path: Path) -> ir.Model:
    proto = read_proto(path)
    check_tensors(proto, str(path))
    check_external_data(proto, path)
    folder = path.parent.resolve()
    for tensor in _inner_external_tensors(proto):
        # The reader looks for these beside the process, not beside the model.
        load_external_data_for_tensor(tensor, str(folder))
    model = to_ir(proto, str(path), folder)
    ir.external_data.set_base_dir(model.graph, folder)
    return model


def check_file(path: Path) -> None:
    """Check a file that onnxruntime will load by itself, as `load_ir` does.

    Raises:
        ModelError: see `Model.load`.
    """
    with texts_are_valid(str(path)):
        proto = read_proto(path)
        check_tensors(proto, str(path))
        check_external_data(proto, path)
        _check_graphs(proto, str(path))


def _check_graphs(proto: onnx.ModelProto, where: str) -> None:
    """Refuse what no tool can run, before one tries."""
    if not proto.graph.output:
        raise ModelError(
            "has no outputs, so it computes nothing",
            where=where,
            hint="Name its outputs when it is exported",
        )
    if not proto.opset_import:
        raise ModelError(
            "names no operator set, so nobody knows what its operators mean",
            where=where,
            hint="Export it again; ONNX wants at least one entry of opset_import",
        )
    check_scopes(proto, where)
    check_loops(proto, where)
    check_computed_constants(proto, where)


@contextlib.contextmanager
def texts_are_valid(where: str) -> Iterator[None]:
    """Refuse a message with names that are not UTF-8, which protobuf hands out as bytes.

    Raises:
        ModelError: there is such a name.
    """
    try:
        yield
    except (TypeError, UnicodeError) as error:
        what = f"has a name that is not valid text ({error})"
        raise ModelError(what, where=where, hint=_DAMAGED) from error


def to_ir(proto: onnx.ModelProto, where: str, folder: Path | None = None) -> ir.Model:
    """Return the graph of a message, whose nodes come in an order in which they can run.

    Raises:
        ModelError: names that are made twice or not at all, nodes in a circle, weights whose bytes
            do not fit their shape, or what else the reader cannot represent.
    """
    check_tensors(proto, where)
    _check_graphs(proto, where)
    try:
        model = from_proto(densify(proto, folder))
        if not sorted_nodes(proto.graph):
            model.graph.sort()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"is not a valid ONNX model: {fault(proto) or _root_text(error)}",
            where=where,
            hint="Export it again; `python -m onnx.checker` shows more",
        ) from error
    return model


def fault(proto: onnx.ModelProto, *, full: bool = False) -> str | None:
    """Return the ONNX checker's first objection to a model, None where it has none."""
    try:
        onnx.checker.check_model(proto, full_check=full)
    except Exception as error:  # noqa: BLE001 - whatever it raises is its objection
        return str(error).strip().partition("\n")[0][:300] or type(error).__name__
    return None


def _root_text(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def read_proto(path: Path) -> onnx.ModelProto:
    """Read the message of an `.onnx` file, without its external data.

    Raises:
        ModelError: no such file, or it is not an ONNX model.
    """
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
        if "\0" in location or len(location) > _LONGEST_NAME:
            raise ModelError(
                f"{location[:40]!r} is not the name of a file", where=where, hint=_DAMAGED
            )
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
        needed = _needed_bytes(tensor, entry, where)
        if file.stat().st_size < needed:
            raise ModelError(
                f"its external data file {location!r} is truncated "
                f"({file.stat().st_size} bytes, {needed} needed)",
                where=where,
                hint="Copy or download it again",
            )


def refuse_external_data(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a message that refers to data in another file, whose folder nobody knows.

    Raises:
        ModelError: names the tensor.
    """
    for tensor in _external_tensors(proto):
        raise ModelError(
            f"tensor {tensor.name!r} is in another file",
            where=where,
            hint="Load the model from its file with Model.load, or its data into the message",
        )


def _needed_bytes(tensor: onnx.TensorProto, entry: dict[str, str], where: str) -> int:
    """Return the size that the file of an external tensor must have."""
    numbers = {}
    for key in ("offset", "length"):
        text = entry.get(key, "0")
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise ModelError(
                f"the {key} of its external data, {text[:40]!r}, is not a number of bytes",
                where=where,
                hint="The file is damaged; export or download it again",
            )
        numbers[key] = int(text)
    size = _stored_bytes(tensor)
    if size is not None and "length" in entry and numbers["length"] != size:
        raise ModelError(
            f"its external data has {numbers['length']} bytes, and its shape "
            f"{shape_text(tensor.dims)} needs {size}",
            where=where,
            hint="The file is damaged; export or download it again",
        )
    return numbers["offset"] + (numbers["length"] or size or 0)


def check_tensors(proto: onnx.ModelProto, where: str) -> None:
    """Refuse weights and constants whose type or shape is not valid, or whose bytes do not fit.

    Raises:
        ModelError: names the tensor.
    """
    for tensor in itertools.chain(_tensors(proto), _sparse_parts(proto)):
        at = f"{where}, tensor {tensor.name!r}"
        hint = "The file is damaged; export or download it again"
        if tensor.data_type not in _TYPES:
            raise ModelError(
                f"its element type {tensor.data_type} is not one of ONNX", where=at, hint=hint
            )
        if min(tensor.dims, default=0) < 0 or len(tensor.dims) > _MOST_AXES:
            raise ModelError(
                f"{list(tensor.dims[:8])} is not a valid shape of a tensor", where=at, hint=hint
            )
        stored, size = _values(tensor), math.prod(tensor.dims)
        if stored is not None and stored != size:
            raise ModelError(
                f"its shape {shape_text(tensor.dims)} has {size} values, and {stored} are stored",
                where=at,
                hint=hint,
            )


_TYPES = frozenset(map(int, ir.DataType)) - {onnx.TensorProto.UNDEFINED}


def _stored_bytes(tensor: onnx.TensorProto) -> int | None:
    """Return the bytes that a tensor's values take, None for texts."""
    kind = ir.DataType(tensor.data_type)
    if kind == ir.DataType.STRING:
        return None
    return int(math.prod(tensor.dims) * kind.bitwidth + 7) // 8


def _values(tensor: onnx.TensorProto) -> int | None:
    """Return the number of values that a tensor stores itself, None where that is not told."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    if tensor.HasField("raw_data"):
        size, wanted = len(tensor.raw_data), _stored_bytes(tensor)
        if wanted is None or size == wanted:
            return None
        return size * math.prod(tensor.dims) // wanted if wanted else size
    kind = ir.DataType(tensor.data_type)
    if kind != ir.DataType.STRING and kind.bitwidth < 8:  # several in one number
        return None
    field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    count = len(getattr(tensor, field))
    return count // 2 if kind in {ir.DataType.COMPLEX64, ir.DataType.COMPLEX128} else count


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors of a model: weights and constants, those of functions included."""
    for graph in _graphs(proto):
        yield from graph.initializer
    yield from _attribute_tensors(proto)


def _attribute_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    nodes = [node for graph in _graphs(proto) for node in graph.node]
    nodes += [node for function in proto.functions for node in function.node]
    defaults = [a for function in proto.functions for a in function.attribute_proto]
    for attribute in (*(a for node in nodes for a in node.attribute), *defaults):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _sparse_parts(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(proto):
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for attribute in (a for node in graph.node for a in node.attribute):
            single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*single, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and all subgraphs, those inside of local functions included."""
    yield from graphs_of(proto.graph)
    for function in proto.functions:
        for node in function.node:
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    yield from graphs_of(inner)


def _external(tensors: Iterator[onnx.TensorProto]) -> list[onnx.TensorProto]:
    return [t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL]


def _external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [*_external(_tensors(proto)), *_external(_sparse_parts(proto))]


def _inner_external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return those that are not weights of the main graph: they are small, and read at once."""
    inner = (t for i, graph in enumerate(_graphs(proto)) if i for t in graph.initializer)
    return _external(itertools.chain(inner, _attribute_tensors(proto), _sparse_parts(proto)))


def _siblings(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.onnx"))
    return ", ".join(names[:8]) or "no .onnx file"
