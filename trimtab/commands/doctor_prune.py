"""`trimtab doctor --prune`: sensitivity of the quality to each group of channels."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.core.model import Model
    from trimtab.passes.pruning.structured.sensitivity import Sensitivity


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that --prune takes."""
    add = parser.add_argument
    add("--prune", action="store_true", help="sensitivity of the quality to each group of channels")
    add("--metric", metavar="M", help="for --prune: name or module:callable")
    text = "for --prune: evaluate on a fleet, dask://...?device=NAME"
    add("--eval-on", metavar="DEVICE", help=text)
    add("--importance", metavar="NAME", help="for --prune: as for `trimtab prune`")


def examine(args: argparse.Namespace) -> int:
    """Measure, print, and write where --json asks for it."""
    from trimtab.core.context import Context
    from trimtab.core.dataset import Dataset
    from trimtab.core.errors import OptionError
    from trimtab.core.files import write_text
    from trimtab.core.progress import Stderr
    from trimtab.passes.pruning.channels import PruneChannels
    from trimtab.passes.pruning.structured.sensitivity import sensitivity
    from trimtab.runtime_bench.open import runner_on

    from ..open_model import open_model
    from .one_pass import target

    if not args.data:
        raise OptionError("--prune measures quality, which needs data", hint="Give --data")
    fields = {"samples": args.samples or 256, "importance": args.importance or "auto"}
    how = PruneChannels.from_json(fields)
    machine, model, data = target(args), open_model(args.model), Dataset.open(args.data)
    with runner_on(args.eval_on) as runner:
        ctx = Context(machine, progress=Stderr(), runner=runner)
        seconds = diagnosis_seconds(args.time, model)
        found = sensitivity(model, how.ranking, data, ctx, metric=args.metric, seconds=seconds)
    print("\n".join(lines(found)))  # noqa: T201
    if args.json:
        write_text(Path(args.json), json.dumps(found.to_json(), indent=1) + "\n")
    return 0


def lines(found: Sensitivity) -> list[str]:
    """Return a table with a row for each group."""
    from trimtab.core.text import table

    title = f"{found.metric} {found.whole:.4f} with all channels, on {found.items} items"
    if not found.groups:
        return [title, "no channel can be removed"]
    header = ["group", "channels", "operators", *(f"-{r:.0%}" for r in found.ratios)]
    rows = [
        [g.name, str(g.channels), str(g.operators), *(f"{q:.4f}" for q in g.quality)]
        for g in found.groups
    ]
    shown = [title, "where that part of one group is gone, nothing repaired:", *table(header, rows)]
    if found.left_out:
        names = ", ".join(found.left_out[:5]) + (", ..." if len(found.left_out) > 5 else "")
        count = len(found.left_out)
        shown.append(
            f"for want of time {count} groups were not measured; --time allows more: {names}"
        )
    return shown


def diagnosis_seconds(given: str | None, model: Model) -> float:
    """Return the time that --time gives; by default 2 minutes, 10 above 20 MB.

    Raises:
        OptionError: it is not a duration.
    """
    from trimtab.core.units import duration

    if given:
        return duration(given, "--time")
    return 120.0 if model.weight_bytes < 20e6 else 600.0
