"""History of gates in an SQLite file, to which any number of processes may append.

Figures are kept by machine class, model digest, onnxruntime version and budget. They are never
compared across machine classes: between two hosted runners a latency may differ twofold.
"""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import InputError, OutputError
from trimtab.core.ort.session import SessionConfig

from ..machine.environment import Environment
from ..machine.gpu import GpuState
from .reporters import GateOutcome

SCHEMA = 1
#: SQLite's application_id of a history: "TRIM".
APPLICATION = 0x5452494D
#: Seconds to wait for another process that writes.
WAIT_SECONDS = 30.0
_TABLES = """
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,              -- UTC, ISO 8601
  gate TEXT NOT NULL,
  machine_class TEXT NOT NULL,
  digest TEXT NOT NULL,          -- of the model
  onnxruntime TEXT NOT NULL,
  provider TEXT NOT NULL,
  threads INTEGER NOT NULL
);
CREATE TABLE figures (
  run INTEGER NOT NULL REFERENCES runs (id),
  budget TEXT NOT NULL,
  kind TEXT NOT NULL,
  wanted TEXT NOT NULL,          -- the budget as it was written then
  verdict TEXT NOT NULL,
  value REAL,                    -- nanoseconds, bytes, a factor or a part of one
  low REAL,
  high REAL
);
CREATE INDEX figures_of_run ON figures (run);
"""


@dataclass(frozen=True)
class Point:
    """One figure of one run: a value in the budget's unit, at a UTC time in ISO 8601."""

    at: str
    digest: str
    onnxruntime: str
    value: float
    verdict: str


@dataclass(frozen=True)
class Series:
    """Comparable figures, oldest first.

    A setting is an execution provider, or a kind of program, and threads.
    """

    gate: str
    budget: str
    machine_class: str
    setting: str
    points: tuple[Point, ...]


class History:
    """An open history file, created where it does not exist unless `create` is false.

    Raises:
        InputError: the file is not a history, is from a newer version, or does not exist.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path)
        if not create and not self.path.exists():
            raise InputError(
                "no such file", where=str(path), hint="`trimtab gate --history FILE` creates one"
            )
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
            self._prepare()

    def _prepare(self) -> None:
        with self._writing():  # two processes may both find an empty file
            version = self._pragma("user_version")
            application = self._pragma("application_id")
            empty = not self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if empty and not version:
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")
                return
            if application != APPLICATION:
                raise InputError(
                    "is a database, but not a history of trimtab",
                    where=str(self.path),
                    hint="Give another file; a new one is created",
                )
            if version > SCHEMA:
                raise InputError(
                    f"is a history of version {version}, this trimtab reads up to {SCHEMA}",
                    where=str(self.path),
                    hint="Update trimtab, or give another file",
                )

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Open a transaction that locks at once, so that it waits here instead of failing later."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of SQLite into one clear message."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"cannot be used as a history ({error})",
                where=str(self.path),
                hint="Check its folder and permissions, and that no other process locks it",
            ) from error
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"is not a history of trimtab ({error})",
                where=str(self.path),
                hint="Give another file; a new one is created",
            ) from error

    def add(self, outcome: GateOutcome, environment: Environment, at: str, threads: int) -> None:
        """Append one gate, all of it or nothing.

        Raises:
            OutputError: the file cannot be written.
        """
        gate, where = outcome.gate, environment.machine_class()
        made_of = (outcome.facts.digest, environment.onnxruntime)
        with self._errors(), self._writing():
            run = self._db.execute(
                "INSERT INTO runs (at, gate, machine_class, digest, onnxruntime, provider, threads)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (at, gate.name, where, *made_of, gate.runs_on, threads),
            ).lastrowid
            for r in outcome.verdicts:
                name, kind, wanted = r.budget.name, r.budget.kind, str(r.budget)
                high = None if r.high == float("inf") else r.high
                self._db.execute(
                    "INSERT INTO figures (run, budget, kind, wanted, verdict, value, low, high)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (run, name, kind, wanted, r.verdict, r.value, r.low, high),
                )

    def series(self) -> list[Series]:
        """Return all series, by gate, budget, machine class and setting.

        Raises:
            InputError: the file is damaged.
        """
        with self._errors():
            rows = self._db.execute(
                "SELECT gate, budget, machine_class, provider || ', ' || threads || ' threads',"
                " at, digest, onnxruntime, value, verdict"
                " FROM figures JOIN runs ON runs.id = run WHERE value IS NOT NULL ORDER BY at, run"
            ).fetchall()
        found: dict[tuple[str, str, str, str], list[Point]] = {}
        for row in rows:
            found.setdefault(row[:4], []).append(Point(*row[4:]))
        return [Series(*key, tuple(points)) for key, points in sorted(found.items())]

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def append(path: str | Path, outcomes: Sequence[GateOutcome]) -> None:
    """Append gates to a history, with this machine and the current time.

    Raises:
        InputError, OutputError: see `History`.
    """
    from trimtab.core.target import usable_cpus

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with contextlib.closing(History(path)) as history:
        for outcome in outcomes:
            threads = outcome.gate.threads or usable_cpus()
            gpu = GpuState.of(SessionConfig(provider=outcome.gate.provider))
            history.add(outcome, Environment.here(gpu), now, threads)
