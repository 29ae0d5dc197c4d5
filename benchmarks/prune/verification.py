"""Verification of pruning on real graphs: each network at 30% and 50% against its masked copy.

A random part of the channels of every group goes, heads and groups whole and then narrowed. The
cut model must compute the same as the uncut one with those channels set to zero, to 1e-5 of its
output. In the light networks of the onnx wheel all channels are alike, so only shapes are verified;
the tests give some of them random weights. --verbose lists the operators whose channels stay, with
the reasons.

    python benchmarks/prune/verification.py [--only resnet unet] [--verbose]

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from networks import NETWORKS

from trimtab.core.model import Model
from trimtab.passes.check import check_model
from trimtab.passes.pruning.dependency.graph import build_dependency_graph, prepare
from trimtab.passes.pruning.structured.cut import cut
from trimtab.passes.pruning.structured.report import declined_operators
from trimtab.passes.pruning.structured.verify import TOLERANCE, mask, verification_error

SHARES = (0.3, 0.5)


def prove(model: Model, share: float, *, whole: bool, verbose: bool) -> tuple[float, int, int]:
    """Cut and verify a model.

    Returns:
        Largest relative difference, channels that went, operators whose channels all stay.
    """
    copy = prepare(model.clone())
    graph = build_dependency_graph(copy, whole=whole)
    rng = np.random.default_rng(0)
    removed: list[int] = []
    for group in graph.groups:
        count = min(round(len(group.units) * share), len(group.units) - 1)
        removed.extend(map(int, rng.choice(group.units, count, replace=False)))
    declined = declined_operators(graph)
    for line in declined if verbose else ():
        print(f"    {line.node}: {line.reason}")
    masked = mask(copy, graph, removed)
    cut(graph, removed)
    check_model(copy, "after the cut")
    return verification_error(masked, copy), len(removed), len(declined)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    names = [n for n in NETWORKS if not args.only or any(part in n for part in args.only)]
    worst, proved, failed = 0.0, 0, []
    for name in names:
        started = time.perf_counter()
        try:
            model = NETWORKS[name]()
            errors = []
            for whole in (True, False):
                for share in SHARES:
                    error, gone, stay = prove(model, share, whole=whole, verbose=args.verbose)
                    errors.append(error)
        except Exception as error:  # noqa: BLE001 - a crash is a result of this benchmark
            failed.append(name)
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            continue
        worst, proved = max(worst, *errors), proved + 1
        if max(errors) > TOLERANCE:
            failed.append(name)
        text = f"{max(errors):.1e}, {gone} channels gone, {stay} operators stay"
        print(f"{name}: {text}, {time.perf_counter() - started:.1f} s", flush=True)
    print(f"failed: {', '.join(failed) or 'none'}")
    print(f"FIGURE networks={proved} failed={len(failed)} worst={worst:.1e}")


if __name__ == "__main__":
    main()
