"""A search that is killed goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SEARCH = """
import sys
from pathlib import Path
import graphs
from cnn_data import arrays
from search_fakes import LOOSE, fast_int8
from trimtab.search.optimize import optimize
outcome = optimize(
    graphs.cnn(), arrays(120), constraints=LOOSE, measure=fast_int8, cache=sys.argv[1],
    passes=["simplify", "quantize-static"],
)
Path(sys.argv[2]).write_bytes(outcome.model.to_bytes())
"""


def entries(cache: Path) -> dict[str, tuple[int, int]]:
    found = [p for p in cache.glob("search/*/*/*") if not p.name.startswith(".new-")]
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_search_gives_the_same_answer_and_makes_no_step_twice(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    environment = {"PYTHONPATH": f"{tests / 'helpers'}:{tests.parent}", "PATH": "/usr/bin:/bin"}

    def search(cache: str, out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SEARCH, str(tmp_path / cache), str(tmp_path / out)]
        return subprocess.Popen(command, env=environment)

    assert search("whole", "expected").wait(200) == 0
    wanted = len(entries(tmp_path / "whole"))
    assert wanted > 6
    process = search("cache", "found")
    while process.poll() is None and len(entries(tmp_path / "cache")) < wanted / 2:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = entries(tmp_path / "cache")
    assert len(before) < wanted
    assert search("cache", "found").wait(200) == 0
    after = entries(tmp_path / "cache")
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()
    assert {p: after[p] for p in before} == before
    assert len(after) == wanted
