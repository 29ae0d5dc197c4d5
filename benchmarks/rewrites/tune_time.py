"""Time to tune a model: from the graph in memory to the tuned one, with the default rules.

    python benchmarks/rewrites/tune_time.py [--models minilm-int8,resnet56] [--seconds 80]
        [--threads 1]

`speed_up.py` says where the data come from.
"""

from __future__ import annotations

import argparse
import time

from speed_up import made, shapes_of, tuned

from trimtab.core.target import Target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="minilm-int8,resnet56")
    parser.add_argument("--seconds", type=float, default=80.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    target, figures = Target.detect(args.threads), []
    for name in args.models.split(","):
        model = made(name, target)
        shapes = shapes_of(model, "1x128")
        start = time.monotonic()
        after = tuned(model, shapes, target, args.seconds)
        taken = time.monotonic() - start
        notes = after.lineage[-1].notes
        print(f"{name}: {taken:.1f} s, {notes.get('speedup', 'nothing kept')} by {notes['kept']}")
        figures.append(f"{name.replace('-', '_')}_seconds={taken:.1f}")
    print("FIGURE", *figures)


if __name__ == "__main__":
    main()
