"""The demo: a small network learns digits, and the whole chain takes it to its best ONNX form.

    python -m trimtab.demo --out out/demo

Trains in seconds on scikit-learn's handwritten digits, exports, makes every candidate, measures
each against the float original, and writes the chosen model, its recipe and the evidence.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.ort.telemetry import disable_telemetry
from trimtab.core.progress import Stderr
from trimtab.core.target import Target

from .search.optimize import Splits, check_output, optimize
from .search.reporting.summary import outcome_lines
from .search.result import Constraints

#: One thread: a small network gains nothing from more, and its latency is steady anywhere.
THREADS = 1


def main() -> int:
    """Run the demo."""
    disable_telemetry()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="out/demo", help="folder to write (default out/demo)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    args = parser.parse_args()
    out = Path(args.out)
    check_output(out)
    progress = Stderr()

    from trimtab.models.digits import train_digits

    from .exporter import export

    progress.say("training a small network on handwritten digits")
    module = train_digits(seed=args.seed)
    model = export(module, name="digits")
    model.save(out / "float.onnx")
    model = replace(model, name=str(out / "float.onnx"))

    outcome = optimize(
        model,
        Splits(part("calibration"), part("validation"), part("test")),
        constraints=Constraints(max_drop=0.01),
        ctx=Context(target=Target.detect(THREADS), progress=progress, seed=args.seed),
        look_into=True,
    )
    written = outcome.save(out)
    print()  # noqa: T201
    print("\n".join(outcome_lines(outcome)))  # noqa: T201
    print(f"\nwrote {', '.join(str(p) for p in written)}")  # noqa: T201
    print(  # noqa: T201
        f"next: trimtab run {out / 'recipe.yaml'} -o {out / 'again'}   makes the same file again;\n"
        "      trimtab optimize your.onnx -o out/yours --data your.npz   does this for your model"
    )
    return 0


def part(name: str) -> Dataset:
    """Open a split of the digits as a dataset that a recipe can find again."""
    return Dataset.open(f"trimtab.models.digits_data:{name}")


if __name__ == "__main__":
    raise SystemExit(main())
