"""resnet56 pruned to half its multiply-adds, and what a limited time of distillation brings back.

    python benchmarks/recover_pruned.py --minutes 20 [--seeds 3] [--pruned FILE]

Top-1 is on the evaluation images, which choose nothing: weights are chosen by a part of the
training images. Without --pruned, the pass that --prune names makes the pruned model.
"""

from __future__ import annotations

import argparse
import json

from recover_data import cifar, network, top1

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.passes import Recover, find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--pruned", help="a pruned model instead of pruning here")
    parser.add_argument("--prune", default="prune-channels", help="pass that prunes")
    parser.add_argument("--fields", default='{"macs": 0.5}', help="its fields, as JSON")
    parser.add_argument("--train", type=int, default=20_000, help="training images")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--recover", default="{}", help="further fields of recover, as JSON")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--save", help="file for the last result")
    args = parser.parse_args()
    teacher, train, unseen = (
        network(args.network),
        cifar("train", args.train),
        cifar("eval", args.eval),
    )
    ctx = Context(data=train, progress=Stderr())
    if args.pruned:
        pruned = Model.load(args.pruned)
    else:
        pruned = find(args.prune).from_json(json.loads(args.fields))(teacher, ctx)
    print(f"float {top1(teacher, unseen):.4f}, pruned {top1(pruned, unseen):.4f}", flush=True)
    fields = {"batch": 128, "optimizer": "adamw", "learning_rate": 1e-3, "augment": "both"}
    fields |= {"time": f"{args.minutes:g}m"} | json.loads(args.recover)
    for seed in range(args.seeds):
        how = Recover.from_json(fields).with_fields(teacher=teacher)
        after = how(pruned, Context(data=train, progress=Stderr(), seed=seed))
        notes = {k: after.lineage[-1].notes[k] for k in ("steps", "best_step", "validation")}
        print(f"seed {seed}: recovered {top1(after, unseen):.4f} {notes}", flush=True)
        if args.save:
            after.save(args.save)


if __name__ == "__main__":
    main()
