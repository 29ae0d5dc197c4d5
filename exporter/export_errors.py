"""Errors of torch's exporter as one message with the module and the source line."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trimtab.core.errors import ExportError

from .given_module import type_advice

TORCH = str(Path(torch.__file__).parent)
HERE = str(Path(__file__).parent)
CONTROL_FLOW = "the control flow depends on the values of a tensor, which a graph cannot express"
NO_ONNX_OPERATOR = "has no ONNX equivalent"


def export_error(error: BaseException, module: nn.Module) -> ExportError:
    """Return the error to raise for what torch raised while it exported `module`."""
    chain = list(_chain(error))
    text = "\n".join(f"{type(e).__name__}: {e}" for e in chain)
    node = _failing_node(chain)
    where = _place_of_node(node, module) if node is not None else failing_line(error, module)
    operator = re.search(r"No ONNX function found for .*?op='([\w.]+)'", text)
    if operator:
        return ExportError(
            f"operator {operator[1]} {NO_ONNX_OPERATOR}",
            where=where,
            hint="Write that line with other operators, or leave that part out of the module",
        )
    if re.search(r"data-dependent|GuardOnDataDependent|[Dd]ynamic control flow", text):
        return ExportError(
            CONTROL_FLOW,
            where=where,
            hint="Choose between values with torch.where, or between branches with torch.cond",
        )
    if "Constraints violated" in text or "constraints" in text.lower():
        return ExportError(
            f"an axis cannot be dynamic: {_constraint(text)}",
            where=where,
            hint="Leave that axis out of --dynamic, or remove the code that depends on its size",
        )
    root = chain[-1] if node is not None else chain[min(1, len(chain) - 1)]
    return ExportError(
        f"torch cannot export it ({type(root).__name__}: {_first_line(root)})",
        where=where,
        hint="Rewrite that line, or leave that part out of the module",
    )


def independent_of_sizes(error: ExportError) -> bool:
    """Return whether the reason has nothing to do with the sizes of axes."""
    return error.what == CONTROL_FLOW or error.what.endswith(NO_ONNX_OPERATOR)


def forward_error(error: Exception, module: nn.Module, inputs: str) -> ExportError:
    """Return the error to raise where the module itself fails, before the export."""
    return ExportError(
        f"the module fails on {inputs} ({type(error).__name__}: {_first_line(error)})",
        where=failing_line(error, module),
        hint=type_advice(module) or "Check the inputs' names, shapes and types",
    )


def failing_line(error: BaseException, module: nn.Module) -> str:
    """Return the innermost submodule and the line of user code in an error's traceback."""
    names = {id(m): name for name, m in module.named_modules()}
    owner, line = submodule_label("", module), ""
    for link in _chain(error):
        for frame, number in traceback.walk_tb(link.__traceback__):
            this = frame.f_locals.get("self")
            if isinstance(this, nn.Module) and id(this) in names:
                owner = submodule_label(names[id(this)], this)
            file = frame.f_code.co_filename
            if not file.startswith((TORCH, HERE, "<")):
                line = _source(file, number)
    return f"{owner}, {line}" if line else owner


def submodule_label(path: str, module: Any) -> str:
    """Name a submodule for a message."""
    kind = module if isinstance(module, str) else type(module).__name__
    return f"module {path!r} ({kind})" if path else f"module {kind}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _failing_node(chain: list[BaseException]) -> Any:
    """Return the operation of torch's graph that was being translated."""
    frames = (frame for link in chain for frame, _ in traceback.walk_tb(link.__traceback__))
    nodes = [frame.f_locals.get("node") for frame in frames]
    return next((node for node in reversed(nodes) if isinstance(node, torch.fx.Node)), None)


def _place_of_node(node: Any, module: nn.Module) -> str:
    """Return the module and source line that an operation of torch's graph comes from."""
    owner = submodule_label("", module)
    for path, kind in (node.meta.get("nn_module_stack") or {}).values():
        short = re.sub(r"^(L\['self'\]\.?)?(module\.?)?", "", path)
        name = kind if isinstance(kind, str) else kind.__name__
        owner = submodule_label(short, name.rpartition(".")[2]) if short else owner
    line = ""
    for file, number in re.findall(r'File "(.+?)", line (\d+)', node.meta.get("stack_trace") or ""):
        if not file.startswith((TORCH, HERE)):
            line = _source(file, int(number))
    return f"{owner}, {line}" if line else owner


def _source(file: str, line: int) -> str:
    path = Path(file)
    short = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    code = linecache.getline(file, line).strip()
    return f"{short} line {line}" + (f" `{code}`" if code else "")


def _constraint(text: str) -> str:
    """Return torch's reason why an axis is fixed."""
    lines = re.findall(r"^\s*- (.+)$", text, re.MULTILINE)
    return (lines[0] if lines else "torch found that the module fixes it")[:300]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
