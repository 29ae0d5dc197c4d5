"""One pair of models measured here and through ssh to this same machine, in turns.

    python benchmarks/remote_overhead.py [--network resnet20] [--rounds 4] [--seconds 15]

An sshd of its own with keys of its own listens on the loopback. Float against int8, one thread; the
blocks of all rounds of one way are one test, so its interval holds for them together. Wanted: the
two ratios within each other's intervals. Told as well: seconds to connect, and to copy the models.

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

from recover_data import cifar, network

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.progress import Silent
from trimtab.core.session import SessionConfig, random_feeds
from trimtab.core.target import Target
from trimtab.passes import QuantizeStatic, Simplify
from trimtab.runtime_bench.bench import Bench, LocalBench, Timing
from trimtab.runtime_bench.remote import RemoteBench
from trimtab.runtime_bench.ssh import Ssh
from trimtab.runtime_bench.statistics import PairedTest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
ALPHA = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0, help="of a round of one way")
    args = parser.parse_args()
    base, candidate = pair(args.network)
    from sshd import sshd

    with tempfile.TemporaryDirectory(prefix="trimtab-overhead-") as name:
        folder, cache = Path(name) / "sshd", Path(name) / "cache"
        folder.mkdir()
        with sshd(folder, cache) as server:
            start = time.monotonic()
            with RemoteBench(Ssh.parse(server.address)) as remote:
                connected = time.monotonic() - start
                measured = in_turns(base, candidate, {"here": LocalBench(), "ssh": remote}, args)
    told = []
    for way, logs in measured.items():
        low, high = (math.exp(v) for v in PairedTest.of(logs).interval(ALPHA))
        centre = math.exp(sorted(logs)[len(logs) // 2])
        told.append(f"{way}={centre:.3f} {way}_low={low:.3f} {way}_high={high:.3f}")
    print(f"FIGURE {' '.join(told)} blocks={len(measured['ssh'])} connect_s={connected:.1f}")


def pair(name: str) -> tuple[Model, Model]:
    """Float and int8."""
    model = network(name)
    ctx = Context(target=Target.detect(threads=1))
    data = cifar("train", 64)
    return model, QuantizeStatic(data=data)(Simplify()(model, ctx), ctx)


def in_turns(
    base: Model, candidate: Model, ways: dict[str, Bench], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Log ratios of the blocks of each way."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    feeds = random_feeds(base)
    for number in range(args.rounds):
        for way, bench in ways.items():
            how = Timing(SessionConfig(threads=1), args.seconds, alpha=ALPHA, seed=number)
            start = time.monotonic()
            comparison = bench.compare(base, [candidate], feeds, how, Silent())[0]
            took = time.monotonic() - start
            found[way] += comparison.log_ratios
            told = f"{comparison.ratio:.3f} [{comparison.low:.3f}, {comparison.high:.3f}]"
            print(f"round {number} {way}: {told}, {took:.1f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
