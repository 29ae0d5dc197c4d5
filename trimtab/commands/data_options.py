"""Options of every command that takes data: what a user says about them is said once, here.

An option becomes one of those behind the `?` of the name of the data, so that recipes and budgets,
which hold that name, feed the same.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.core.model import Model

#: Options that name data.
_DATA = ("data", "eval")
#: Preparation of pictures, see `Preprocess`.
_PREPARATION = {
    "resize": ("letterbox:640", "size of pictures, also stretch:224 or crop:224"),
    "colour": ("rgb", "order of the channels: rgb, bgr or grey"),
    "scale": ("1/255", "factor of the values 0 to 255"),
    "mean": ("0.5,0.5,0.5", "what is subtracted after that"),
    "std": ("0.5,0.5,0.5", "what is divided by after that"),
    "layout": ("nchw", "order of the axes: nchw or nhwc"),
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command that takes data."""
    taken = {option for action in parser._actions for option in action.option_strings}  # noqa: SLF001
    if "--data" not in taken:
        return
    group = parser.add_argument_group("data")
    for name, (example, text) in _PREPARATION.items():
        if f"--{name}" not in taken:
            group.add_argument(f"--{name}", metavar=example.upper(), help=text)
    text = "state to feed back: an input and the output that is its next value; repeatable"
    if "--state" not in taken:
        group.add_argument(
            "--state", action="append", default=[], metavar="INPUT=OUTPUT", help=text
        )
    text = "bytes on disk for rows that take long to read: pictures, recordings, user code"
    group.add_argument("--row-cache", metavar="SIZE", default="4GB", help=f"{text} (default 4GB)")
    if "--no-cache" not in taken:  # that of a command's own cache holds for rows, too
        group.add_argument("--no-cache", action="store_true", help="read them anew in every pass")


def join(args: argparse.Namespace) -> None:
    """Put the options behind the names of the data, of pictures also what files tell.

    Raises:
        OptionError: there are no data that the options could be of.
        DataError: a file that says how pictures are prepared cannot be read.
    """
    from trimtab.core.errors import OptionError
    from trimtab.core.sources.opening import with_options

    said = [(n, str(v)) for n in _PREPARATION if (v := getattr(args, n, None)) is not None]
    said += [("state", pair) for pair in getattr(args, "state", None) or []]
    given = [name for name in _DATA if getattr(args, name, None)]
    if said and not given:
        raise OptionError("is about data, and there are none", where=f"--{said[0][0]}")
    for name in given:
        text = with_options(getattr(args, name), said)
        model = getattr(args, "model", None) or getattr(args, "base", None)
        setattr(args, name, _as_files_tell(text, model))


def read_once(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Return a context in which each data is opened once and its rows are kept as options say.

    Raises:
        OptionError: the size of the cache is not valid.
    """
    if not hasattr(args, "row_cache"):
        return nullcontext()
    from trimtab.core.progress import Stderr
    from trimtab.core.sources.row_store import rows_read_once
    from trimtab.core.units import size

    return rows_read_once(0 if args.no_cache else size(args.row_cache, "--row-cache"), Stderr())


def _as_files_tell(spec: str, model: str | None) -> str:
    """Return the name of pictures with the options that files tell, where it has none."""
    from trimtab.core.progress import Stderr
    from trimtab.core.sources.opening import options_of, with_options
    from trimtab.core.sources.preprocess_files import found_preparation

    folder = Path(spec.partition("?")[0])
    if _PREPARATION.keys() & options_of(spec).keys() or not folder.is_dir() or model is None:
        return spec
    found = None if any(folder.glob("*.npz")) else found_preparation(Path(model), folder)
    if found is None:
        return spec
    options, where = found
    text = " ".join(f"--{key} {value}" for key, value in options.items())
    Stderr().say(f"{folder}: pictures are prepared as {where} tells: {text}")
    return with_options(spec, options.items())


def say(spec: str | None, model: Model, *, judges: bool = True) -> None:
    """Print which states are fed back and files left out; warn of rows that do not fit or tell.

    Args:
        spec: name of the data; nothing is said where there are none.
        model: model that takes them.
        judges: whether ranges or quality come from the rows; times alone may be of any.

    Raises:
        DataError: the data do not fit the model.
    """
    from trimtab.core.alike import alike
    from trimtab.core.dataset import Dataset
    from trimtab.core.progress import Stderr
    from trimtab.core.sources.first_layer import misfit
    from trimtab.core.sources.pictures import PictureSource

    if spec is None:
        return
    data = Dataset.open(spec).bind(model)
    broken = data.source.left_out
    if broken:
        names = ", ".join(file.name for file in broken[:5])
        Stderr().say(f"{spec}: {len(broken)} files cannot be read and are left out: {names}")
    if data.stream is not None:
        Stderr().say(f"{spec}: {data.stream}")
    if judges and (how := alike(data)):
        Stderr().say(f"warning: {spec}: {how}")
    if isinstance(data.source, PictureSource):
        for batch in data.select(data.positions[:1], "first").sized(1):
            for name, array in batch.feeds.items():
                why = misfit(model, name, array)
                if why:
                    Stderr().say(f"warning: {spec}: {why}")
