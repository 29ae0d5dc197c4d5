"""A finished search as a document, with real measurements of made samples and hostile names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.ort.session import SessionConfig
from trimtab.runtime_bench.machine.environment import Environment
from trimtab.runtime_bench.measure.values import Comparison, Measurement
from trimtab.search.result import SCHEMA

#: A name that ends a script, opens one, and breaks out of an attribute.
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'`|"
METRIC = "top1"
#: A picture of one pixel.
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def measurement(name: str, median_ms: float, seed: int) -> Measurement:
    """Make 120 runs around a median."""
    rng = np.random.default_rng(seed)
    samples = tuple(int(x) for x in median_ms * 1e6 * rng.lognormal(0, 0.1, 120))
    environment = Environment.here()
    return Measurement(name, "0" * 64, 1000, samples, (), environment, SessionConfig())


def comparison(name: str, ratio: float, seed: int = 0) -> dict[str, Any]:
    """Compare a candidate with an original of 1 ms."""
    base = measurement("original", 1.0, seed)
    candidate = measurement(name, 1.0 / ratio, seed + 1)
    low, high = 0.95 * ratio, 1.05 * ratio
    verdict = "better" if low > 1 else "same"
    made = Comparison(base, candidate, ratio, low, high, verdict, alpha=0.05, resolution=0.05)
    return made.to_json()


def quality(value: float) -> dict[str, Any]:
    return {"metric": METRIC, "value": value, "standard_error": 0.004, "count": 400}


def candidate(
    name: str, size: int, value: float, ratio: float | None, **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": {"name": name, "model": "float.onnx", "passes": ["simplify"]},
        "size_bytes": size,
        "selection": quality(value),
        "test": quality(value) if ratio else None,
        "comparison": comparison(name, ratio) if ratio else None,
        "measured_as": None,
        "failure": None,
        **more,
    }


def confirmed(name: str) -> dict[str, Any]:
    """Make fresh evidence: a loss of 0.001 to 0.012 on 800 items, 1.9x in another run."""
    loss = {"value": 0.006, "low": 0.001, "high": 0.012, "items": 800, "part": "test split"}
    again = comparison(name, 1.9, seed=7)
    return {
        "loss": loss | {"verdict": "not settled"},
        "confirmation": again,
        "standing": "proved",
        "kept_answers": 0.99,
    }


def document() -> dict[str, Any]:
    """Make a search over five candidates; one failed, one lost too much, one is hostile."""
    results = [
        candidate("float simplified", 4_000_000, 0.900, 1.02),
        candidate("int8 static", 1_100_000, 0.898, 2.0, **confirmed("int8 static")),
        candidate(HOSTILE, 1_200_000, 0.899, 1.5),
        candidate("int8 dynamic", 1_000_000, 0.700, None, dropped="loses 0.2000, 0.01 is allowed"),
        candidate("broken", 0, 0.0, None, failure="pass x failed", selection=None),
    ]
    original = candidate("original", 4_100_000, 0.900, None, test=quality(0.900), recipe=None)
    return {
        "schema": SCHEMA,
        "kind": "optimize",
        "constraints": {
            "max_drop": 0.01,
            "min_speedup": 3.0,
            "max_latency_ns": 2e6,
            "percentile": 95,
        },
        "data": {"test": {"data": "eval.npz", "items": 400, "part": "test"}},
        "original": original,
        "results": results,
        "chosen": "int8 static",
        "frontier": ["int8 static", HOSTILE, "float simplified"],
        "looks": 1,
        "why": ["int8 static is 2.00x [1.90, 2.10] as fast as the original."],
        "evidence": evidence([r["name"] for r in results[:3]]),
    }


def evidence(names: list[str]) -> dict[str, Any]:
    layers = [
        {
            "name": name,
            "op_type": "Conv",
            "runs_as": "QLinearConv",
            "before_ns": 1000.0 * (i + 2),
            "after_ns": 500.0 * (i + 1),
        }
        for i, name in enumerate(["conv1", "conv2", f"conv{HOSTILE}"])
    ]
    return {
        "environment": Environment.here().to_json(),
        "drops": {name: {"selection": [0.002, 0.003]} for name in names},
        "digests": {"original": "a" * 64},
        "examples": {
            "items": 40,
            "of": 400,
            "outputs": [{"name": f"y{HOSTILE}", "kind": "class scores", "value": 0.9, "loss": 0.1}],
            "examples": [
                {
                    "name": f"cat{HOSTILE}",
                    "output": "y",
                    "kept": 0.0,
                    "float": {"text": f"cat 0.9{HOSTILE}", "image": PIXEL},
                    "ours": {"text": "dog 0.6", "image": "https://example.com/tracker.png"},
                }
            ],
            "note": "",
        },
        "layers": layers,
        "errors": {
            "samples": 16,
            "answer_snr_db": 30.0,
            "notes": [f"1 constant has no partner: {HOSTILE}"],
            "layers": [
                {
                    "layer": layer["name"],
                    "op": "Conv",
                    "harm": 0.1 / (i + 1),
                    "snr_alone_db": 40.0 + i,
                    "snr_accumulated_db": 30.0 + i,
                    "cause": HOSTILE,
                    "mend": "nothing",
                }
                for i, layer in enumerate(layers)
            ],
        },
        "widths": [{"name": "conv2", "before": 64, "after": 40, "operators": 2}],
        "islands": [{"nodes": [HOSTILE], "why": HOSTILE, "mend": "replace it", "time_share": 0.2}],
        "lineage": [
            {
                "pass": "simplify",
                "params": {"note": HOSTILE},
                "input": "b" * 64,
                "notes": {"folded": 3, "declined": [[HOSTILE, "too small"]]},
            }
        ],
        "missing": {},
    }


def saved(folder: Path, **changes: Any) -> Path:
    """Save the document, with some top-level values replaced."""
    path = folder / "result.json"
    path.write_text(json.dumps(copy.deepcopy(document()) | changes))
    return path
