"""Decisions of `optimize` on few rows: how often what loses too much is taken, what holds refused.

    python benchmarks/optimize/small_data.py [--record] [--splits 50] [--json FILE]

`--record` makes the candidates (resnet20 and mobilenet_v2 in int8 of several kinds, pruned, with
weights of 4 bits), and keeps which of the 5,000 evaluation images each loses, wins or answers
otherwise, in `answers.json` beside this script. Without it these recorded answers are taken: then
it takes seconds and needs no data. The loss on all images counts as the truth. For each candidate,
number of rows and split, rows are drawn at random, half of them select and half confirm, and the
search's own rules decide (`ranking.loses_too_much`, then `judging.QualityJudge`), with the limit

    breaks   two thirds of the true loss, so that the candidate loses half of the limit too much
    holds    0.01, 0.02 or 0.03, where the true loss is at most half of it

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from trimtab.core.metric import Quality
from trimtab.search.confirmation.judging import QualityJudge
from trimtab.search.ranking import loses_too_much
from trimtab.search.result import Constraints, Result

ANSWERS = Path(__file__).with_name("answers.json")
ROWS = (128, 256, 512, 1024)
#: Limits that people give; the true loss of one that holds is at most this share of them.
LIMITS, HOLDING = (0.01, 0.02, 0.03), 0.5
#: A candidate that breaks its limit loses so many times as much; limits of this range count.
BREAKING, LEAST, MOST = 1.5, 0.004, 0.04


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of a candidate beside the original's on all images.

    Attributes:
        name: network and candidate.
        base: (N,) whether the original is right.
        mine: (N,) whether the candidate is right.
        changed: (N,) whether it answers otherwise.
    """

    name: str
    base: np.ndarray
    mine: np.ndarray
    changed: np.ndarray

    @property
    def loss(self) -> float:
        """Loss on all images."""
        return float((self.base - self.mine).mean())


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedJudge(QualityJudge):
    """Judge of recorded answers: nothing is run.

    Attributes:
        candidate: candidate with its quality on both splits.
        agreed: (N,) whether it answers as the original does.
    """

    candidate: Result
    agreed: np.ndarray

    @classmethod
    def of(cls, answers: Answers, rows: np.ndarray, limit: float) -> RecordedJudge:
        """Make a judge whose selection is the first half of the rows, and whose test the other."""
        half = len(rows) // 2
        parts = {"selection": rows[:half], "test": rows[half:]}
        base = {name: _quality(answers.base[part]) for name, part in parts.items()}
        mine = {name: _quality(answers.mine[part]) for name, part in parts.items()}
        evaluator: Any = SimpleNamespace(
            constraints=Constraints(max_drop=limit),
            metric=SimpleNamespace(name="top1", wants="labels"),
            splits=SimpleNamespace(**parts, calibration=[]),
            confirmed=lambda result: result,
            is_exact=lambda _: False,
        )
        model: Any = object()
        candidate = Result("candidate", model=model, **mine)
        agreed = 1.0 - answers.changed[rows]
        return cls(evaluator, Result("original", **base), candidate=candidate, agreed=agreed)

    def _all_rows(self, tested: Result) -> Iterator[Any]:  # noqa: ARG002 - as its base has it
        yield from ()

    def _agreement(self, tested: Result) -> np.ndarray:  # noqa: ARG002 - as its base has it
        return self.agreed

    def _is_rounding(self, tested: Result) -> bool:  # noqa: ARG002 - as its base has it
        return False

    def takes(self) -> bool:
        """Return whether the search keeps the candidate, and the confirmation takes it."""
        if loses_too_much(self.candidate, self.original, self.evaluator.constraints):
            return False
        return self.objection(self.judged(self.candidate), looks=1) is None


def _quality(right: np.ndarray) -> Quality:
    return Quality("top1", float(right.mean()), right, len(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="make the candidates again")
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    args = parser.parse_args()
    if args.record:
        record()
    found = [row for answers in load() for row in cases(answers, args.splits)]
    report(found, args.splits)
    if args.json:
        args.json.write_text(json.dumps({"splits": args.splits, "cases": found}, indent=1) + "\n")


def load() -> list[Answers]:
    """Read the recorded answers: of each candidate the images that differ from the original."""
    document = json.loads(ANSWERS.read_text())
    found = []
    for network, entry in document.items():
        base = np.ones(entry["images"])
        base[entry["wrong"]] = 0
        for name, differs in entry["candidates"].items():
            mine, changed = base.copy(), np.zeros(len(base))
            mine[differs["lost"]], mine[differs["won"]] = 0, 1
            changed[[i for part in differs.values() for i in part]] = 1
            found.append(Answers(f"{network}, {name}", base, mine, changed))
    return found


def cases(answers: Answers, splits: int) -> list[dict[str, Any]]:
    """Return how often a candidate is taken, for each limit that it breaks or holds, and size."""
    broken = answers.loss / BREAKING
    limits = [("breaks", broken)] if LEAST <= broken <= MOST else []
    limits += [("holds", limit) for limit in LIMITS if answers.loss <= HOLDING * limit]
    found = []
    for kind, limit in limits:
        for rows in ROWS:
            rng = np.random.default_rng(rows)
            draws = (rng.permutation(len(answers.base))[:rows] for _ in range(splits))
            taken = sum(RecordedJudge.of(answers, draw, limit).takes() for draw in draws)
            found.append(
                {
                    "candidate": answers.name,
                    "loss": round(answers.loss, 4),
                    "changed": round(float(answers.changed.mean()), 4),
                    "limit": round(limit, 4),
                    "kind": kind,
                    "rows": rows,
                    "taken": taken,
                }
            )
    return found


def report(found: list[dict[str, Any]], splits: int) -> None:
    """Print the figures by number of rows, and of each candidate."""
    for row in found:
        print(
            f"{row['candidate']:42} loses {row['loss']:+.4f}, limit {row['limit']:.4f} "
            f"{row['kind']:6} {row['rows']:5} rows: taken {row['taken']} of {splits}"
        )
    counts: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in found:
        counts[row["kind"], row["rows"]].append(row["taken"])
    for rows in ROWS:
        breaking, holding = counts["breaks", rows], counts["holds", rows]
        wrong = sum(breaking) / max(1, splits * len(breaking))
        refused = 1 - sum(holding) / max(1, splits * len(holding))
        print(
            f"FIGURE rows={rows} broken_taken={wrong:.3f} of {splits * len(breaking)} "
            f"holding_refused={refused:.3f} of {splits * len(holding)}"
        )


def record() -> None:
    """Make the candidates and keep their answers on all evaluation images."""
    from common.data import cifar, network

    images, calibration = cifar("eval"), cifar("train", 512)
    labels = np.concatenate([batch.labels for batch in images])
    document = {}
    for name in ("resnet20", "mobilenet_v2"):
        original = network(name)
        base = answers_of(original, images)
        entry: dict[str, Any] = {
            "images": len(labels),
            "wrong": np.flatnonzero(base != labels).tolist(),
            "candidates": {},
        }
        document[name] = entry
        for kind, candidate in made(original, calibration):
            mine = answers_of(candidate, images)
            lost, won = (base == labels) & (mine != labels), (base != labels) & (mine == labels)
            other = (base != mine) & ~lost & ~won
            differs = {"lost": lost, "won": won, "otherwise": other}
            entry["candidates"][kind] = {k: np.flatnonzero(v).tolist() for k, v in differs.items()}
            print(f"{name}, {kind}: loses {(lost.sum() - won.sum()) / len(lost):+.4f}", flush=True)
            ANSWERS.write_text(json.dumps(document) + "\n")


def made(original: Any, calibration: Any) -> Any:
    """Yield the name and the model of each candidate."""
    from trimtab.core.context import Context
    from trimtab.core.target import Target
    from trimtab.passes import PruneChannels, QuantizeStatic, QuantizeWeights

    ctx = Context(target=Target.detect(1), original=original)
    static = QuantizeStatic(data=calibration.take(64))
    yield "int8", static(original, ctx)
    yield (
        "int8, percentile",
        QuantizeStatic(data=calibration.take(64), ranges="percentile")(original, ctx),
    )
    yield "int8, 8 rows", QuantizeStatic(data=calibration.take(8))(original, ctx)
    for macs in (0.95, 0.9, 0.85, 0.8, 0.7):
        pruned = PruneChannels(macs=macs, data=calibration, samples=128)(original, ctx)
        yield f"pruned to {macs:.0%}", pruned
        yield f"pruned to {macs:.0%}, int8", static(pruned, ctx)
    yield "weights of 4 bits", QuantizeWeights(bits=4)(original, ctx)


def answers_of(model: Any, images: Any) -> np.ndarray:
    """Return the class of each image (N,)."""
    from trimtab.core.ort.session import SessionConfig
    from trimtab.core.runner import run_here

    found = run_here(model, images.bind(model), SessionConfig(threads=1))
    return np.concatenate([next(iter(outputs.values())).argmax(1) for _, outputs in found])


if __name__ == "__main__":
    main()
