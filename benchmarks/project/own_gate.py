"""The model and the data of `make gate-self`: a small network that has learnt the digits.

python benchmarks/project/own_gate.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from trimtab.exporter import export
from trimtab.models.digits import train_digits
from trimtab.models.digits_data import calibration, test


def main() -> None:
    """Write `float.onnx`, and rows to calibrate and to judge on."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    export(train_digits(), name="digits").save(folder / "float.onnx")
    for name, rows in (("calibration", calibration()), ("test", test())):
        np.savez(folder / f"{name}.npz", **rows)


if __name__ == "__main__":
    main()
