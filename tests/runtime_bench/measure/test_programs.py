"""Commands and functions as contenders: what is timed, and what ends a measurement."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.core.errors import InputError, OptionError, RunError, TrimtabError
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent
from trimtab.runtime_bench.bench.bench import LocalBench, Timing
from trimtab.runtime_bench.devices.bundles import model_files
from trimtab.runtime_bench.measure.compare import compare
from trimtab.runtime_bench.measure.contenders.command import Command
from trimtab.runtime_bench.measure.contenders.contender import Contender
from trimtab.runtime_bench.measure.contenders.function import Function
from trimtab.runtime_bench.measure.contenders.program import Program
from trimtab.runtime_bench.measure.forecast import forecast
from trimtab.runtime_bench.measure.subject import Subject
from trimtab.runtime_bench.measure.values import Comparison

PIPELINE = """
import pathlib, sys, time
calls = pathlib.Path("calls")

def run():
    print("x" * 100_000)
    calls.write_text("called")

def make():
    calls.write_text("made")
    return run

class Pipeline:
    def __call__(self):
        calls.write_text("object")

def needs(picture): ...
async def later(): ...
def raises(): raise ValueError("bad input")
def ends(): sys.exit(3)
def hangs(): time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "pipe.py").write_text(PIPELINE)
    return str(tmp_path)


@contextlib.contextmanager
def opened(program: Program, seconds: float = 30.0) -> Iterator[Contender]:
    with contextlib.closing(program.contender(seconds)) as contender:
        yield contender


def test_a_run_of_a_command_is_a_process_in_its_folder(folder: str) -> None:
    with opened(Command("sh -c 'echo x >> runs; echo much; echo more >&2'", folder)) as contender:
        assert contender.warm({}) > 0
        contender.renew()
        assert len(contender.time(3).ns) == 3
    assert (Path(folder) / "runs").read_text() == "x\n" * 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("'open", "cannot be split"),
        ("no-such-program x", "there is no program 'no-such-program'"),
        ("./pipe.py", "there is no program"),
        ("cat a | wc", "Write sh -c 'cat a | wc'"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_at_once(folder: str, text: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Command(text, folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "sh -c 'echo no weights >&2; exit 3'",
            "ends with exit code 3; its last output: no weights",
        ),
        ("sh -c 'kill -9 $$'", "ends by SIGKILL"),
        ("sleep 60", "hangs: it did not end within 200 ms"),
        ("sh -c 'yes >&2'", "hangs"),
    ],
)
def test_a_command_that_fails_or_hangs_is_a_finding(text: str, says: str) -> None:
    with opened(Command(text), 0.2) as contender, pytest.raises(RunError, match=says):
        contender.time(1)


@pytest.mark.parametrize(
    ("name", "left"), [("run", "called"), ("make", "called"), ("Pipeline", "object")]
)
def test_a_run_of_a_function_is_a_call_of_it_or_of_what_it_returns(
    folder: str, name: str, left: str
) -> None:
    with opened(Function(f"pipe:{name}", folder)) as contender:
        assert contender.warm({}) > 0
        (Path(folder) / "calls").unlink()
        assert len(contender.time(2).ns) == 2
        assert (Path(folder) / "calls").read_text() == left


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("needs", InputError, "without arguments .*picture"),
        ("later", InputError, "runs later"),
        ("rum", InputError, "Did you mean 'run'"),
        ("raises", RunError, r"pipe:raises: raises ValueError: bad input in .*pipe\.py, line \d+"),
        ("ends", RunError, "raises SystemExit: 3"),
    ],
)
def test_a_function_that_cannot_be_called_is_named(
    folder: str, name: str, kind: type[TrimtabError], says: str
) -> None:
    with opened(Function(f"pipe:{name}", folder)) as contender, pytest.raises(kind, match=says):
        contender.warm({})


@pytest.mark.slow
def test_a_function_that_hangs_is_killed(folder: str) -> None:
    with (
        opened(Function("pipe:hangs", folder), 1.0) as hangs,
        pytest.raises(RunError, match="hang"),
    ):
        hangs.warm({})


def test_a_file_in_place_of_a_module_is_answered_with_the_module() -> None:
    with pytest.raises(OptionError, match="Did you mean 'net:run'"):
        Function("sub/net.py:run")


@pytest.mark.slow
def test_programs_are_compared_as_models_are(folder: str) -> None:
    script = Path(folder) / "new.py"
    script.write_text("pass")
    base, new = Command("true"), Command(f"{sys.executable} -S {script}")
    (found,) = compare(base, [new], max_seconds=1)
    assert (found.renewed, found.error) == (True, None)
    assert found.blocks > 0
    assert found.candidate.model == new.text
    assert found.candidate.config is None
    assert found.candidate.digest == new.digest != base.digest
    assert Comparison.from_json(found.to_json()) == found
    before = new.digest
    script.write_text("pass  # changed")
    assert new.digest != before


def test_the_forecast_of_programs_says_how_many_blocks_fit() -> None:
    found = forecast([Command("sleep 0.05")] * 2, {}, SessionConfig(), 2.0)
    assert found.run_seconds > 0.05
    assert 1 <= found.blocks <= 3.0 / 0.1
    assert found.warm_seconds < found.seconds <= 3.1


def test_only_this_machine_measures_programs(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="only this machine"):
        model_files(Subject.of(Command("true")), tmp_path)
    how = Timing(SessionConfig(), concurrency=2)
    with pytest.raises(OptionError, match="only this machine"):
        LocalBench().measure([Command("true")], {}, how, Silent())
