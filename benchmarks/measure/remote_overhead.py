"""Compare one pair of models locally, and on this machine through ssh and through Dask, in turns.

    python benchmarks/measure/remote_overhead.py [--network resnet20] [--rounds 4] [--seconds 15]

An sshd with its own keys, and a scheduler with one worker, listen on the loopback. Float against
int8, one thread; the blocks of all rounds of one way are one test, so its interval holds for them
together. Expected: ratios equal within their intervals. Also reported: seconds until ssh and Dask
are ready.

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
from pathlib import Path

from common.data import ROOT, cifar, network

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent
from trimtab.core.target import Target
from trimtab.passes import QuantizeStatic, Simplify
from trimtab.runtime_bench.bench.bench import Bench, LocalBench, Timing
from trimtab.runtime_bench.devices.agent_bench import AgentBench
from trimtab.runtime_bench.devices.fleet_address import FleetAddress
from trimtab.runtime_bench.devices.ssh import Ssh
from trimtab.runtime_bench.fleet.bench import FleetBench
from trimtab.runtime_bench.fleet.local import LocalFleet
from trimtab.runtime_bench.stats.e_process import PairedTest

sys.path.append(str(ROOT / "tests" / "helpers"))
ALPHA = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0, help="of a round of one way")
    args = parser.parse_args()
    base, candidate = pair(args.network)
    from sshd import free_port, sshd

    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="trimtab-overhead-"))
        folder = Path(name) / "sshd"
        folder.mkdir()
        os.environ["TRIMTAB_CACHE"] = str(Path(name) / "fleet")  # with its own device lock
        server = stack.enter_context(sshd(folder, Path(name) / "cache"))
        fleet = stack.enter_context(LocalFleet(["board"], port=free_port()))
        start = time.monotonic()
        ssh = stack.enter_context(AgentBench(Ssh.parse(server.address)))
        connect_s = time.monotonic() - start
        address = FleetAddress.parse(f"dask://127.0.0.1:{fleet.port}?device=board")
        start = time.monotonic()
        dask = stack.enter_context(FleetBench(address))
        queued = time.monotonic() - start
        ways: dict[str, Bench] = {"here": LocalBench(), "ssh": ssh, "dask": dask}
        measured = in_turns(base, candidate, ways, args)
    figures = []
    for way, logs in measured.items():
        low, high = (math.exp(v) for v in PairedTest.of(logs).interval(ALPHA))
        centre = math.exp(sorted(logs)[len(logs) // 2])
        figures.append(f"{way}={centre:.3f} {way}_low={low:.3f} {way}_high={high:.3f}")
    blocks = min(map(len, measured.values()))
    print(f"FIGURE {' '.join(figures)} blocks={blocks} ssh_s={connect_s:.1f} dask_s={queued:.1f}")


def pair(name: str) -> tuple[Model, Model]:
    """Return a float network and its int8 version."""
    model = network(name)
    ctx = Context(target=Target.detect(threads=1))
    data = cifar("train", 64)
    return model, QuantizeStatic(data=data)(Simplify()(model, ctx), ctx)


def in_turns(
    base: Model, candidate: Model, ways: dict[str, Bench], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the log ratios of the blocks of each way."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    feeds = random_feeds(base)
    for number in range(args.rounds):
        for way, bench in ways.items():
            how = Timing(SessionConfig(threads=1), args.seconds, alpha=ALPHA, seed=number)
            start = time.monotonic()
            comparison = bench.compare(base, [candidate], feeds, how, Silent())[0]
            took = time.monotonic() - start
            found[way] += comparison.log_ratios
            ratio = f"{comparison.ratio:.3f} [{comparison.low:.3f}, {comparison.high:.3f}]"
            print(f"round {number} {way}: {ratio}, {took:.1f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
