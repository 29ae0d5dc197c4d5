"""Modules that run at their first use: each case in a process of its own, as imports last."""

import subprocess
import sys

import pytest

CASES = {
    "loading a file leaves it": "import onnx_ir; print('sympy.core' in sys.modules)",
    "a name runs it": "import sympy; print(sympy.Symbol('x') + 1, type(sympy).__name__)",
    "a part runs the whole first": "import sympy.printing; print(sympy.S.Half)",
    "a name from it": "from sympy import S; print(S.One)",
    "sums of dimensions": "import onnx_ir; print(onnx_ir.SymbolicDim('N+2') * 3)",
    "a name that is not in it": "import sympy; print(getattr(sympy, 'no_such_name', 'none'))",
    "threads wait for all of it": (
        "import sympy; from concurrent.futures import ThreadPoolExecutor as Pool; "
        "print(set(Pool(8).map(lambda _: str(sympy.Symbol('x') + 1), range(8))))"
    ),
}
SAID = ["False", "x + 1 module", "1/2", "1", "3*N + 6", "none", "{'x + 1'}"]


@pytest.mark.parametrize(("case", "said"), [*zip(CASES, SAID, strict=True)])
def test_sympy_waits_for_its_first_use(case: str, said: str) -> None:
    code = f"import sys, trimtab; {CASES[case]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said
