"""Inputs and dynamic axes as the command line writes them, read without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import InputError, OptionError, unknown
from trimtab.core.units import sizes

#: Element types by their name, which NumPy and torch share.
DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")

#: Axis names by position, by input name.
Dynamic = dict[str, dict[int, str]]
#: Least and largest size by axis name; None where there is no largest.
Ranges = dict[str, tuple[int, int | None]]
#: Name of an axis, with its range if it has one: `n`, `n>=5`, `5<=n<=64`.
AXIS = re.compile(r"(?:(\d+)<=)?([^\W\d]\w*)(?:>=(\d+))?(?:<=(\d+))?")
#: Files of weights that can be read without running code from them.
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class InputSpec:
    """Input of a module.

    Attributes:
        name: a parameter of `forward`, or the name of the graph's input.
        shape: sizes, each at least 1.
        dtype: element type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.name}={'x'.join(map(str, self.shape))}:{self.dtype}"


def parse_input_spec(text: str) -> InputSpec:
    """Read an input from a text such as `ids=1x128:int64`; the default type is float32.

    Raises:
        OptionError: the text is not valid.
    """
    name, _, rest = text.partition("=")
    before, _, dtype = rest.partition(":")
    shape = sizes(before)
    if not name.strip() or not shape or min(shape) < 1:
        raise OptionError(
            f"{text!r} is not a valid input",
            where="--input",
            hint="Write it as NAME=1x3x32x32:float32",
        )
    if (dtype or "float32") not in DTYPES:
        raise unknown("element type", dtype, DTYPES, where=f"--input {text}")
    return InputSpec(name.strip(), shape, dtype or "float32")


def parse_dynamic(*texts: str) -> Dynamic:
    """Read axis names by position, by input, from texts such as `ids=0:batch,1:sequence`.

    Raises:
        OptionError: a text is not valid, or an axis is named twice.
    """
    dynamic: Dynamic = {}
    for text in texts:
        name, _, rest = text.partition("=")
        axes = dynamic.setdefault(name.strip(), {})
        for part in rest.split(","):
            number, _, axis = (p.strip() for p in part.partition(":"))
            if not name.strip() or not number.lstrip("-").isdigit() or not AXIS.fullmatch(axis):
                raise OptionError(
                    f"{text!r} is not a valid list of dynamic axes",
                    where="--dynamic",
                    hint="Write it as NAME=0:batch,1:sequence; an axis name is letters, "
                    "digits and _, with a range where it has one: n>=5",
                )
            if axes.setdefault(int(number), axis) != axis:
                raise OptionError(
                    f"axis {number} has two names: {axes[int(number)]!r} and {axis!r}",
                    where=f"--dynamic {text}",
                )
    return dynamic


def split_ranges(dynamic: Mapping[str, Mapping[int, str]]) -> tuple[Dynamic, Ranges]:
    """Separate axis names such as `n>=5` and `5<=n<=64` into names and ranges.

    Raises:
        OptionError: a name is not valid, or a range has no sizes.
    """
    names: Dynamic = {}
    ranges: Ranges = {}
    for name, axes in dynamic.items():
        for axis, label in axes.items():
            found = AXIS.fullmatch(label.replace(" ", "")) if isinstance(label, str) else None
            if found is None:
                raise OptionError(
                    f"{label!r} is not a valid name of an axis",
                    where=f"dynamic, input {name!r}",
                    hint="Write letters, digits and _, with a range where it has one: n>=5",
                )
            names.setdefault(name, {})[axis] = found[2]
            low = max(int(found[1] or 1), int(found[3] or 1))
            high = int(found[4]) if found[4] else None
            known = ranges.get(found[2], (1, None))
            highs = [h for h in (high, known[1]) if h is not None]
            ranges[found[2]] = max(low, known[0]), min(highs) if highs else None
    for label, (low, high) in ranges.items():
        if high is not None and high < low:
            raise OptionError(f"axis {label!r} has no size from {low} to {high}", where="dynamic")
    return names, {n: r for n, r in ranges.items() if r != (1, None)}


def weights_file(path: str | Path) -> Path:
    """Return the path of a file of weights.

    Raises:
        InputError: it does not exist, or is of an unknown type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", where=str(path), hint="Check --weights")
    if path.suffix not in WEIGHTS:
        raise InputError(
            f"unknown type of weights {path.suffix or 'without suffix'!r}",
            where=str(path),
            hint="Give .safetensors, or .pt made with torch.save(module.state_dict(), path)",
        )
    return path
