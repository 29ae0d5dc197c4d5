"""Check a model against its budgets: the exit code says whether all hold.

Each budget is judged on its own: pass, fail or inconclusive. Exit codes: 0 all hold, 1 one is
broken, 2 bad input, 3 not enough evidence, 4 the machine is too noisy to tell. A budgets file:

    model: out/model.onnx
    baseline: float.onnx      # for speedup and drop
    data: eval.npz            # for drop, and as inputs
    metric: top1
    threads: 1
    budgets: {p95: 5ms, speedup: 1.5, size: 4MB, rss: 200MB, load: 300ms, drop: 0.01,
              no_slower_than: previous.onnx, tolerance: 0.02, int8_share: 0.9}

Several documents, or a list under `gates:`, are several gates; paths are relative to the file.
`on: [pi5, orin-nano]` checks the budgets on each of these devices.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.runtime_bench.bench.budgets import Gate
    from trimtab.runtime_bench.gate.reporters import GateOutcome
    from trimtab.runtime_bench.measure.compare import ModelOrPath

SUMMARY = "check a model against its budgets, for CI"
EXAMPLE = "trimtab gate budgets.yaml --max-time 60s --junit gate.xml"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("budgets", metavar="budgets.yaml", help="budgets, or the folder that optimize wrote")
    add("--max-time", metavar="30s", default="30s", help="time limit of each gate (default 30s)")
    add(
        "--on-inconclusive",
        choices=["report", "fail", "pass"],
        default="report",
        help="exit code of undecided budgets: 3 or 4 (report, default), 1 (fail), 0 (pass)",
    )
    add("--seed", metavar="N", default="0", help="random seed of the block order (default 0)")
    add("--on", metavar="DEVICE", help="measure there: ssh://user@host, or names of `device`")
    add("--history", metavar="FILE", help="append the figures to a history, see `trimtab history`")
    add("--json", metavar="FILE", help="write all results, with every sample")
    add("--junit", metavar="FILE", help="write JUnit XML")
    add("--markdown", metavar="FILE", help="write a Markdown table")
    add("--bencher", metavar="FILE", help="write Bencher Metric Format")
    add("--benchmark-action", metavar="FILE", help="write the format of github-action-benchmark")


def execute(args: argparse.Namespace) -> int:
    """Measure, judge, print and write the results."""
    from trimtab.core.files import check_output_file, in_folder
    from trimtab.runtime_bench.gate.budget_file import load_gates
    from trimtab.runtime_bench.gate.reporters import all_verdicts, lines
    from trimtab.runtime_bench.gate.rules import exit_code
    from trimtab.runtime_bench.open import device_names

    args.budgets = str(in_folder(args.budgets, "budgets.yaml"))
    gates = [
        _on(gate, device)
        for gate in load_gates(args.budgets)
        for device in gate.on or device_names(args.on)
    ]
    _check_history(args.history)
    for path in (args.json, args.junit, args.markdown, args.bencher, args.benchmark_action):
        if path:
            check_output_file(path, args.budgets, parents=True)
    outcomes = _judged(args, gates)
    print("\n".join(lines(outcomes)))  # noqa: T201
    _report_to_github(args.budgets, outcomes)
    if args.history:
        from trimtab.runtime_bench.gate.history import append

        append(args.history, outcomes)
    return exit_code(all_verdicts(outcomes), args.on_inconclusive)


def _judged(args: argparse.Namespace, gates: Sequence[Gate]) -> list[GateOutcome]:
    """Measure and judge the gates, one device after the other, and write after each gate.

    Two runs that lock one device each would wait for ever; an error in a later gate loses nothing.
    """
    from trimtab.core.context import check_seed
    from trimtab.core.fields import convert
    from trimtab.core.progress import Stderr
    from trimtab.core.units import duration
    from trimtab.runtime_bench.bench.budgets import count_statistical
    from trimtab.runtime_bench.devices.web_browser import is_web
    from trimtab.runtime_bench.gate.collect import Collector
    from trimtab.runtime_bench.gate.reporters import GateOutcome
    from trimtab.runtime_bench.gate.rules import ALPHA, judge
    from trimtab.runtime_bench.open import bench_on, runner_on

    alpha, progress = ALPHA / count_statistical(gates), Stderr()
    seed: int = convert(int, args.seed, where="--seed")
    limits = alpha, duration(args.max_time, "--max-time"), check_seed(seed, "--seed")
    outcomes: list[GateOutcome] = []
    for device in dict.fromkeys(gate.on for gate in gates):
        name = device[0] if device else None
        judge_on = name if name is not None and is_web(name) else None
        with bench_on(name, progress) as bench, runner_on(judge_on) as runner:
            for gate in (g for g in gates if g.on == device):
                facts = Collector(
                    gate, *limits, progress, open_model=_open, bench=bench, runner=runner
                ).collect()
                outcomes.append(GateOutcome(gate, facts, judge(gate, facts, alpha=alpha)))
                _write(args, outcomes, alpha)
                if facts.interrupted:
                    break
        if outcomes[-1].facts.interrupted:
            break
    _write(args, outcomes, alpha, last=True)
    return outcomes


def _on(gate: Gate, device: str | None) -> Gate:
    """Return the gate for one device, named after both."""
    if device is None:
        return gate
    return replace(gate, name=f"{gate.name} on {device}", on=(device,))


def _open(name: str) -> ModelOrPath:
    from pathlib import Path

    from trimtab.core.load import check_file

    from ..open_model import open_model

    if not Path(name).exists():
        return open_model(name)
    check_file(Path(name))
    return Path(name)


def _check_history(path: str | None) -> None:
    """Check that the history can be written, before anything is measured."""
    if path:
        from trimtab.runtime_bench.gate.history import History

        History(path).close()


def _write(
    args: argparse.Namespace, outcomes: Sequence[GateOutcome], alpha: float, *, last: bool = False
) -> None:
    """Write the results to files; the last time to standard output, which is written once."""
    import json
    from pathlib import Path

    from trimtab.core.files import STDOUT, write_text
    from trimtab.runtime_bench.gate import reporters as outputs
    from trimtab.runtime_bench.measure.values import save

    def wanted(path: str | None) -> bool:
        return path is not None and (path in STDOUT) == last

    if wanted(args.json):
        document = outputs.document(outcomes, alpha=alpha, on_inconclusive=args.on_inconclusive)
        save(Path(args.json), document)
    if wanted(args.junit):
        write_text(Path(args.junit), outputs.junit(outcomes))
    if wanted(args.markdown):
        write_text(Path(args.markdown), outputs.markdown(outcomes) + "\n")
    if wanted(args.bencher):
        write_text(Path(args.bencher), json.dumps(outputs.bencher(outcomes), indent=1) + "\n")
    if wanted(args.benchmark_action):
        entries = json.dumps(outputs.benchmark_action(outcomes), indent=1)
        write_text(Path(args.benchmark_action), entries + "\n")


def _report_to_github(budgets: str, outcomes: Sequence[GateOutcome]) -> None:
    """Write the summary and annotations of the job, in a GitHub workflow."""
    import os
    from pathlib import Path

    from trimtab.core.files import writing
    from trimtab.runtime_bench.gate.reporters import markdown, workflow_commands

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with writing(Path(summary)), Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown(outcomes) + "\n")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print("\n".join(workflow_commands(outcomes, budgets)))  # noqa: T201
