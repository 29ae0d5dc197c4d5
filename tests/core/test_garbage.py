"""Memory that goes back between the candidates of a search."""

from __future__ import annotations

import subprocess
import sys
import weakref

from trimtab.core import garbage

CODE = """
import gc, weakref
from trimtab.core.garbage import drop_candidate, return_freed_memory
class Node: pass
def cycle():
    node = Node(); node.self = node
    return weakref.ref(node)
gc.disable()
return_freed_memory()
first = cycle(); drop_candidate(); second = cycle(); drop_candidate()
print(first() is None, second() is None)
"""


def test_candidates_are_collected_in_the_process_of_a_command():
    """Both before and after what lives on is frozen."""
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert found.stdout.split() == (
        ["True", "True"] if sys.platform == "linux" else ["False", "False"]
    )
    assert not found.stderr


def test_collector_of_another_program_is_left_alone(monkeypatch):
    class Node:
        pass

    monkeypatch.setattr(garbage, "_trims", [])
    node = Node()
    node.self = node  # type: ignore[attr-defined]
    left = weakref.ref(node)
    del node
    with garbage.gc_paused():
        garbage.drop_candidate()
        assert left() is not None
