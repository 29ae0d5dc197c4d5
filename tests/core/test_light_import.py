"""onnx_ir without sympy until it is used: each case in a process of its own, as imports last."""

import subprocess
import sys

import pytest

CASES = {
    "loading leaves it": ("import onnx_ir; print('sympy' in sys.modules)", "False"),
    "it is itself": (
        "import onnx_ir, sympy; print(type(sympy).__name__, sympy.Symbol('x') + 1)",
        "module x + 1",
    ),
    "sums of sizes": ("import onnx_ir; print(onnx_ir.SymbolicDim('N+2') * 3)", "3*N + 6"),
    "functions of sizes": (
        "import onnx_ir; print((onnx_ir.SymbolicDim('max(N, 3)') + 1).value.replace(' ', ''))",
        "Max(3,N)+1",
    ),
    "expressions": (
        "import onnx_ir, sympy; print(onnx_ir.SymbolicDim(sympy.Symbol('M') * 2))",
        "2*M",
    ),
    "one that is there already": (
        "import sympy, onnx_ir; print(onnx_ir.SymbolicDim('N') + 1, onnx_ir._core.sympy is sympy)",
        "N + 1 True",
    ),
    "nothing stays behind": (
        "import onnx_ir; print([f for f in sys.meta_path if 'light' in type(f).__module__], "
        "'light' in type(onnx_ir.__spec__.loader).__module__)",
        "[] False",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_onnx_ir_takes_sympy_at_its_first_use(case: str) -> None:
    code, said = CASES[case]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, trimtab; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == said
