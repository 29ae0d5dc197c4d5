"""Samples of code that load and feed a packaged model, filled with its names, types and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

_FOLDER = Path(__file__).parent / "samples"
#: Name of an element type: in C, Java and Swift.
_TYPES = {
    "float32": ("FLOAT", "FLOAT", "float"),
    "float64": ("DOUBLE", "DOUBLE", "float"),
    "float16": ("FLOAT16", "FLOAT16", "float"),
    "int64": ("INT64", "INT64", "int64"),
    "int32": ("INT32", "INT32", "int32"),
    "int8": ("INT8", "INT8", "int8"),
    "uint8": ("UINT8", "UINT8", "uInt8"),
    "bool": ("BOOL", "BOOL", "uInt8"),
}
_LEVELS = {
    "off": ("ORT_DISABLE_ALL", "NO_OPT", "none"),
    "basic": ("ORT_ENABLE_BASIC", "BASIC_OPT", "basic"),
    "extended": ("ORT_ENABLE_EXTENDED", "EXTENDED_OPT", "extended"),
    "all": ("ORT_ENABLE_ALL", "ALL_OPT", "all"),
}


def sample(path: str, manifest: Mapping[str, Any]) -> str:
    """Return the text of a sample; those in Python and JavaScript read the manifest themselves."""
    text = (_FOLDER / f"{Path(path).name}.txt").read_text(encoding="utf-8")
    if Path(path).suffix in {".py", ".mjs", ".html"} or path.endswith("CMakeLists.txt"):
        return text
    return Template(text).substitute(_values(manifest))


def _values(manifest: Mapping[str, Any]) -> dict[str, str]:
    how = manifest["preprocess"] or {
        "mean": [],
        "std": [],
        "scale": 1.0,
        "colour": "",
        "layout": "",
    }
    session = manifest["session"]
    c, java, swift = _LEVELS[session["level"]]
    found = {
        "MODEL": manifest["model"],
        "TOLERANCE": f"{manifest['tolerance']:g}",
        "THREADS": str(session["threads"]),
        "CPP_LEVEL": c,
        "JAVA_LEVEL": java,
        "SWIFT_LEVEL": swift,
        "SCALE": f"{float(how['scale']):.9g}",
        "BGR": str(how["colour"] == "bgr").lower(),
        "NHWC": str(how["layout"] == "nhwc").lower(),
    }
    for name in ("mean", "std"):
        found[name.upper()] = ", ".join(repr(float(value)) for value in how[name])
        found[f"{name.upper()}_F"] = ", ".join(f"{float(value)!r}f" for value in how[name])
    for part in ("inputs", "outputs"):
        found |= _tensors(part.upper(), manifest[part])
    return found | _config(session["config"])


def _tensors(part: str, tensors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the lines that declare tensors, by language."""

    def lines(write: Callable[[Mapping[str, Any], str, tuple[str, str, str]], str]) -> str:
        made = [
            write(t, ", ".join(map(str, t["shape"])), _TYPES.get(t["type"], _TYPES["uint8"]))
            for t in tensors
        ]
        return ",\n".join(made)

    def head(tensor: Mapping[str, Any]) -> str:
        return f'"{_escaped(tensor["name"])}", "{tensor["file"]}"'

    element = "ONNX_TENSOR_ELEMENT_DATA_TYPE_"
    return {
        f"CPP_{part}": lines(lambda t, s, k: f"    {{{head(t)}, {element}{k[0]}, {{{s}}}}}"),
        f"JAVA_{part}": lines(
            lambda t, s, k: f"    new Tensor({head(t)}, OnnxJavaType.{k[1]}, new long[] {{{s}}})"
        ),
        f"KOTLIN_{part}": lines(
            lambda t, s, k: f"        Tensor({head(t)}, OnnxJavaType.{k[1]}, longArrayOf({s}))"
        ),
        f"SWIFT_{part}": lines(
            lambda t, s, k: (
                f'        Tensor(name: "{_escaped(t["name"])}", file: "{t["file"]}", '
                f"type: .{k[2]}, shape: [{s}])"
            )
        ),
    }


def _config(entries: Mapping[str, str]) -> dict[str, str]:
    """Return the lines that set session entries, by language."""
    pairs = [(_escaped(key), _escaped(value)) for key, value in entries.items()]
    return {
        "CPP_CONFIG": "\n".join(f'  options.AddConfigEntry("{k}", "{v}");' for k, v in pairs),
        "JAVA_CONFIG": "\n".join(f'      options.addConfigEntry("{k}", "{v}");' for k, v in pairs),
        "KOTLIN_CONFIG": "\n".join(f'        addConfigEntry("{k}", "{v}")' for k, v in pairs),
        "SWIFT_CONFIG": "\n".join(
            f'        try options.addConfigEntry(withKey: "{k}", value: "{v}")' for k, v in pairs
        ),
    }


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
