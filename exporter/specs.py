"""Inputs and dynamic axes as the command line writes them, read without torch."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.core.errors import OptionError, unknown
from trimtab.core.units import sizes

#: Element types by their name, which NumPy and torch share.
DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")

#: Axis names by position, by input name.
Dynamic = dict[str, dict[int, str]]


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
            if not name.strip() or not number.lstrip("-").isdigit() or not axis.isidentifier():
                raise OptionError(
                    f"{text!r} is not a valid list of dynamic axes",
                    where="--dynamic",
                    hint="Write it as NAME=0:batch,1:sequence; an axis name is letters, "
                    "digits and _",
                )
            if axes.setdefault(int(number), axis) != axis:
                raise OptionError(
                    f"axis {number} has two names: {axes[int(number)]!r} and {axis!r}",
                    where=f"--dynamic {text}",
                )
    return dynamic
