"""The kinds of programs, by the words that command line and budgets have for them."""

from __future__ import annotations

from collections.abc import Mapping

from .command import Command
from .function import Function
from .program import Program

PROGRAMS: Mapping[str, type[Program]] = {"command": Command, "callable": Function}
