"""Comparison of models in one run, with a verdict (`compare`) or without (`measure`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from trimtab.core.batches import items_of
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.progress import Progress, Silent
from trimtab.core.timings import stage

from ..machine.noise_check import Snapshot, canary
from ..stats.e_process import PairedTest
from ..stats.percentiles import runs_needed
from ..stats.verdict import is_decided
from .contenders.contender import Contender
from .contenders.in_process import InProcessContender, without_spinning
from .contenders.pacing import BlockPlan, fits, too_little_time, warm_up
from .contenders.program import Program
from .contenders.subprocess_contender import SubprocessContender, hang_limit
from .engines import spread
from .feeds import check_same_inputs
from .sampling import BlockPair, Sampler, SideBySide
from .subject import ModelOrPath, Reporter, Subject, Timed, models_of, size_bytes
from .timing import Runs
from .values import Comparison, Measurement

__all__ = ["ModelOrPath", "compare", "measure", "size_bytes"]

#: What models are fed: arrays by input name, data whose first row it is, or random values.
Given = Feeds | Dataset | str | Path | None
MakeContender = Callable[[Model | Path, str, SessionConfig], Contender]
#: Fewest runs of each model in `measure`, time permitting: enough for a 99th percentile.
WANTED_RUNS = runs_needed(0.99)


@stage("measuring latency")
def compare(  # noqa: PLR0913 - the one call of the bench, all but three by keyword
    base: Timed,
    candidates: Sequence[Timed] | Timed,
    feeds: Given = None,
    *,
    config: SessionConfig | None = None,
    providers: Sequence[str] = (),
    base_provider: str = "cpu",
    max_seconds: float = 30.0,
    alpha: float = 0.01,
    resolution: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
    in_process: bool = False,
    until: Callable[[PairedTest], bool] | None = None,
    make_contender: MakeContender | None = None,
) -> list[Comparison]:
    """Measure candidates against a base, all interleaved, and decide a verdict on each.

    Args:
        base: model, `.onnx` file, or a program (`Command`, `Function`).
        candidates: models that take the same inputs, or programs; one of them, or several.
        feeds: arrays by input name, or data whose first row is fed (default random); programs feed
            themselves.
        config: session configuration of models.
        providers: engines such as `cpu` or `openvino:device_type=GPU`, on each of which the base
            and each candidate is measured; the comparisons are then `spread` over them.
        base_provider: engine of the base, where there are `providers`.
        max_seconds: time limit of all together; it stops earlier when all are decided.
        alpha: bound on the probability of any wrong verdict, shared by the candidates.
        resolution: relative difference below which two models count as equal.
        seed: random seed of the order of blocks (default 0).
        progress: progress reporter.
        in_process: run sessions in this process instead of one process each.
        until: stopping rule of a pair; by default it stops at a verdict and an interval no wider
            than the resolution on each side.
        make_contender: factory of a model's contender; by default it follows `in_process`.

    Returns:
        One comparison per candidate, in order; with `providers` one per model and engine, all
        against the base on its engine. A candidate that crashed, hung or was refused has
        its `error`, and the others are complete. After Ctrl-C they are `interrupted`.

    Raises:
        InputError: the models do not take the same inputs, or a file cannot be used.
        OptionError: a dynamic axis has no size, or an option is out of range.
        RunError: the base cannot be run.
    """
    if isinstance(candidates, str) or not isinstance(candidates, Sequence):
        candidates = [candidates]
    if providers:
        base, *candidates = spread([base, *candidates], providers, base_provider)
    _check_options(max_seconds, alpha, resolution, candidates)
    config = config or SessionConfig()
    subjects = [Subject.of(base), *map(Subject.of, candidates)]
    feeds = _fitting_feeds(subjects, feeds)
    share = alpha / len(candidates)
    progress = progress or Silent()
    sampler = Sampler(np.random.default_rng(seed), time.monotonic_ns, canary, say=progress.say)

    def verdict_stands(test: PairedTest) -> bool:
        return is_decided(test, alpha=share, resolution=resolution, renewed=sampler.plan.renew)

    watched = _watched(subjects, config)
    before = Snapshot.now(watched)
    with open_contenders(
        subjects, config, max_seconds, in_process=in_process, make_contender=make_contender
    ) as contenders:
        pairs = [BlockPair(contenders[0], contender) for contender in contenders[1:]]
        blocks = sampler.blocks(pairs, feeds, seconds=max_seconds, until=until or verdict_stands)
        interrupted = _exhaust(progress.track(blocks, "blocks"))
        after = Snapshot.now(watched)  # before a GPU cools
    used = without_spinning(config) if in_process else config
    reporter = Reporter(used, feeds, before, after, sampler.canary_ns, interrupted)
    return [
        reporter.comparison(
            subjects[0], subject, pair, share, resolution, renewed=sampler.plan.renew
        )
        for subject, pair in zip(subjects[1:], pairs, strict=True)
    ]


@stage("measuring latency")
def measure(
    models: Sequence[Timed],
    feeds: Given = None,
    *,
    config: SessionConfig | None = None,
    max_seconds: float = 30.0,
    seed: int = 0,
    progress: Progress | None = None,
    in_process: bool = False,
    until: Callable[[Sequence[Sequence[int]]], bool] | None = None,
    make_contender: MakeContender | None = None,
) -> list[Measurement]:
    """Measure models side by side, in rounds of random order, without a verdict.

    It stops when every model has the runs that a 99th percentile needs and half of the time has
    passed, when `until` returns true for the samples by model, at the time limit, or at Ctrl-C.

    Raises:
        InputError, OptionError, RunError: as `compare`, for any of the models.
    """
    if max_seconds <= 0:
        raise OptionError("must be above 0", where=f"max_seconds={max_seconds}")
    config = config or SessionConfig()
    subjects = [Subject.of(m) for m in models]
    feeds = _fitting_feeds(subjects, feeds)
    taken: list[list[Runs]] = [[] for _ in subjects]
    before, canary_ns = Snapshot.now(config), list[int]()
    with open_contenders(
        subjects, config, max_seconds, in_process=in_process, make_contender=make_contender
    ) as contenders:
        rounds = _side_by_side(
            contenders, feeds, seed, max_seconds, taken=taken, canary_ns=canary_ns, until=until
        )
        interrupted = _exhaust((progress or Silent()).track(rounds, "rounds"))
        after = Snapshot.now(config)  # before a GPU cools
    used = without_spinning(config) if in_process else config
    reporter = Reporter(used, feeds, before, after, canary_ns, interrupted)
    measured = zip(subjects, contenders, taken, strict=True)
    return [reporter.measurement(s, contender, runs) for s, contender, runs in measured]


def _side_by_side(
    contenders: Sequence[Contender],
    feeds: Feeds,
    seed: int,
    seconds: float,
    *,
    taken: list[list[Runs]],
    canary_ns: list[int],
    until: Callable[[Sequence[Sequence[int]]], bool] | None,
) -> Iterator[None]:
    now = time.monotonic_ns
    start, limit_ns = now(), seconds * 1e9
    share = seconds / 10 / len(contenders)
    slowest = max(warm_up(contender, feeds, now, share) for contender in contenders)
    left = seconds - (now() - start) / 1e9
    plan = BlockPlan.of(slowest, 0, left, len(contenders))
    turns = SideBySide(contenders, np.random.default_rng(seed), now, plan)
    round_ns = (plan.discard + plan.runs) * slowest * len(contenders)
    if not fits(round_ns, left, seconds, first=True):
        raise too_little_time(round_ns, left, seconds)
    while True:
        began = now()
        for index, runs in turns.round():
            taken[index].append(runs)
        canary_ns.append(canary())
        yield
        round_ns, gone_ns = now() - began, now() - start
        if until is not None and until([[n for r in runs for n in r.ns] for runs in taken]):
            return
        fewest = min(sum(len(r.ns) for r in runs) for runs in taken)
        enough = until is None and gone_ns > limit_ns / 2 and fewest >= WANTED_RUNS
        if enough or gone_ns >= limit_ns or not fits(round_ns, seconds - gone_ns / 1e9, seconds):
            return


@contextlib.contextmanager
def open_contenders(
    subjects: Sequence[Subject],
    config: SessionConfig,
    limit_seconds: float,
    *,
    in_process: bool,
    make_contender: MakeContender | None = None,
) -> Iterator[list[Contender]]:
    """Open the contenders of the subjects, and close them at the end whatever happens."""

    def opened(subject: Subject) -> Contender:
        if make_contender is not None:
            return make_contender(subject.onnx, subject.name, subject.config(config))
        if isinstance(subject.source, Program):
            return subject.source.contender(limit_seconds)
        if in_process:
            return InProcessContender(subject.source, subject.config(config), subject.name)
        hang_seconds = hang_limit(limit_seconds)
        return SubprocessContender(
            subject.source, subject.config(config), subject.name, hang_seconds=hang_seconds
        )

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(opened(s))) for s in subjects]


def _fitting_feeds(subjects: Sequence[Subject], given: Given) -> Feeds:
    """Return feeds that all models take, random ones by default; programs feed themselves."""
    models = models_of(subjects)
    if not models:
        return {}
    feeds = given_feeds(models[0]) if given is None else given
    named = {spec.name for spec in models[0].inputs}
    if isinstance(feeds, Dataset | str | Path) or "labels" in feeds.keys() - named:
        feeds = items_of(models[0], Dataset.of(feeds).bind(models[0]))(0)
    check_same_inputs(models, feeds)
    return feeds


def _watched(subjects: Sequence[Subject], config: SessionConfig) -> SessionConfig:
    """Return the configuration whose device is watched for noise: a GPU where one is measured."""
    every = [subject.config(config) for subject in subjects]
    return next((c for c in every if memory_of(c.provider) not in {None, "cpu"}), config)


def _exhaust(rounds: Iterable[object]) -> bool:
    """Exhaust an iterator; return True if the user interrupted, so that the samples are kept."""
    try:
        for _ in rounds:
            pass
    except KeyboardInterrupt:
        return True
    return False


def _check_options(
    max_seconds: float, alpha: float, resolution: float, candidates: Sequence[Timed]
) -> None:
    if not candidates:
        raise OptionError("there is no candidate to compare", hint="Use measure for one model")
    if max_seconds <= 0:
        raise OptionError("must be above 0", where=f"max_seconds={max_seconds}")
    if not 0 < alpha < 1:
        raise OptionError("must lie between 0 and 1", where=f"alpha={alpha}")
    if not 0 < resolution <= 1:
        raise OptionError("must lie between 0 and 1", where=f"resolution={resolution}")
