"""resnet56 pruned to half its multiply-adds, then distilled for a limited time.

    python benchmarks/finetune/pruned.py [--minutes 20] [--threads 2] [--seeds 0 1 2] [--out FOLDER]

Goal: within 0.5 points of float after at most 20 minutes on two cores. Top-1 is on the evaluation
images, on which no choice is made: weights are chosen by a part of the training images. Without
--pruned, the pass that --prune names makes the pruned model.
"""

from __future__ import annotations

import argparse
import json
import statistics

from common.data import cifar, network, top1
from runs import by_seed, cached_model, limit_time, parser_of, spread, timed_fields, train

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.passes import find


def pruned_model(args: argparse.Namespace, teacher: Model, data: Dataset) -> Model:
    """Load the pruned model of the options, or prune the teacher."""
    if args.pruned:
        return Model.load(args.pruned)
    prune = find(args.prune).from_json(json.loads(args.fields))
    return cached_model(
        args.out, "pruned", lambda: prune(teacher, Context(data=data, progress=Stderr()))
    )


def main() -> None:
    parser = parser_of(__doc__, "resnet56")
    limit_time(parser, 20)
    parser.add_argument("--pruned", help="a pruned model instead of pruning here")
    parser.add_argument("--prune", default="prune-channels", help="pass that prunes")
    parser.add_argument("--fields", default='{"macs": 0.5, "block": 1}', help="its fields, as JSON")
    args = parser.parse_args()
    teacher, data, unseen = (
        network(args.network),
        cifar("train", args.train),
        cifar("eval", args.eval),
    )
    pruned = pruned_model(args, teacher, data)
    before, start = top1(teacher, unseen), top1(pruned, unseen)
    print(f"float {before:.4f}, pruned {start:.4f}", flush=True)
    # Folded and repaired weights are good already: 2e-4 and above spoils them at first, and
    # training finds nothing better than the start in the time.
    fields = timed_fields(args, learning_rate=1.2e-4)
    found = by_seed(
        args,
        "recovered",
        unseen,
        lambda seed: train(pruned, data, seed, teacher=teacher, fields=fields),
    )
    lost = before - statistics.fmean(found)
    print(f"FIGURE float={before:.4f} pruned={start:.4f} recovered={spread(found)} drop={lost:.4f}")


if __name__ == "__main__":
    main()
