"""Options of every command that takes data: what a user says about them is said once, here.

An option becomes one of those behind the `?` of the name of the data, so that recipes and budgets,
which hold that name, feed the same.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.core.model import Model

#: Options that name data.
_DATA = ("--data", "--eval")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command that takes data."""
    taken = {option for action in parser._actions for option in action.option_strings}  # noqa: SLF001
    if "--data" not in taken:
        return
    group = parser.add_argument_group("data")
    text = "state to feed back: an input and the output that is its next value; repeatable"
    if "--state" not in taken:
        group.add_argument(
            "--state", action="append", default=[], metavar="INPUT=OUTPUT", help=text
        )


def join(args: argparse.Namespace) -> None:
    """Put the options behind the names of the data."""
    from trimtab.core.errors import OptionError

    said = [f"state={pair}" for pair in getattr(args, "state", None) or []]
    if not said:
        return
    names = [option.strip("-") for option in _DATA]
    given = [name for name in names if getattr(args, name, None)]
    if not given:
        raise OptionError("says something of data, and there are none", where="--state")
    for name in given:
        text = getattr(args, name)
        setattr(args, name, text + ("&" if "?" in text else "?") + "&".join(said))


def say_states(spec: str | None, model: Model) -> None:
    """Print which states of the model are fed back, where the data are sequences."""
    from trimtab.core.dataset import Dataset
    from trimtab.core.progress import Stderr

    stream = Dataset.open(spec).bind(model).stream if spec else None
    if stream is not None:
        Stderr().say(f"{spec}: {stream}")
