"""`--input` and `--dynamic` as the command line writes them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trimtab.core.errors import OptionError
from trimtab.exporter import InputSpec, parse_dynamic, parse_input_spec


def test_an_input_has_name_shape_and_type() -> None:
    assert parse_input_spec("ids=1x128:int64") == InputSpec("ids", (1, 128), "int64")


def test_float32_is_the_default_type() -> None:
    assert parse_input_spec("x=7") == InputSpec("x", (7,), "float32")


def test_a_spec_prints_as_it_is_written() -> None:
    assert str(parse_input_spec("x=1x3x32x32:float16")) == "x=1x3x32x32:float16"


@pytest.mark.parametrize("text", ["x", "=1x3", "x=", "x=axb", "x=1x0", "x=-1x3", "x=1,3"])
def test_an_invalid_input_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match="NAME=1x3x32x32:float32"):
        parse_input_spec(text)


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'float32'"):
        parse_input_spec("x=1x3:flaot32")


def test_dynamic_axes_of_several_inputs() -> None:
    assert parse_dynamic("ids=0:batch,1:sequence", "mask=0:batch", "mask=1:sequence") == {
        "ids": {0: "batch", 1: "sequence"},
        "mask": {0: "batch", 1: "sequence"},
    }


@pytest.mark.parametrize(
    "text", ["ids", "ids=", "ids=batch", "ids=0:", "ids=a:b", "ids=0:1x", "=0:b"]
)
def test_an_invalid_axis_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match="NAME=0:batch,1:sequence"):
        parse_dynamic(text)


def test_an_axis_with_two_names_is_refused() -> None:
    with pytest.raises(OptionError, match="two names: 'batch' and 'rows'"):
        parse_dynamic("ids=0:batch", "ids=0:rows")


def test_the_package_and_its_parsers_do_not_import_torch() -> None:
    code = (
        "import sys; from trimtab.exporter import parse_input_spec, parse_dynamic; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_without_torch_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["torch"] = None
from trimtab.core.errors import MissingExtraError
try:
    from trimtab.exporter import export
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "trimtab[torch]"' in done.stdout
