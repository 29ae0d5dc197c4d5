"""Sources of items: arrays, `.npz` files and shards, image folders, user code."""

from __future__ import annotations

import functools
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..callables import import_callable, is_callable_spec
from ..data import Batch, Rows, Source
from ..errors import DataError, InputError, OptionError
from .arrays import LABELS, ArraySource, ShardedSource, digest_of
from .npz import read_member
from .pictures import IMAGES, open_pictures
from .row_store import RowStore, first_pass, opened_once
from .tables import TABLES, TableSource, read_table
from .texts import open_texts, read_lines
from .waves import RECORDINGS, open_waves, recordings

#: Name of the labels of a kept batch, which no input has.
_LABEL = ""
#: Options behind the `?` that may name a file or a folder.
_FILE_OPTIONS = frozenset({"labels", "masks", "tokenizer"})
#: What reading of a damaged .npz raises: by zipfile, zlib and the header of an array.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,  # packed by a method unknown here, or encrypted
    SyntaxError,
    TypeError,
    MemoryError,
)


def open_source(spec: str) -> Source:
    """Open the source that a DATA argument names, once a command; see `Dataset.open`."""
    return opened_once(spec, functools.partial(_open, spec))


def _open(spec: str) -> Source:
    name, _, text = spec.partition("?")
    path = Path(spec)
    if text and not path.exists():
        path = Path(name)
    if path.is_dir():
        return _open_folder(path, _options(text) if path == Path(name) else {})
    if path.exists():
        given = text if path == Path(name) else ""
        if path.suffix.lower() in TABLES:
            return _open_table(path, _options(given))
        if path.suffix.lower() == ".txt":
            return read_lines(path, _options(given))
        _refuse_options(given, spec)
        return _open_npz(path)
    if is_callable_spec(spec):
        return _open_callable(spec)
    if any(sign in path.name for sign in "*?["):
        raise DataError(
            "is a pattern, and no file", where=spec, hint=f"Give the folder itself: {path.parent}"
        )
    raise DataError(
        "no such file or folder",
        where=spec,
        hint="Give an .npz, .csv, .parquet or .txt file, a folder of .npz shards, pictures or "
        "recordings, or module:callable",
    )


def _refuse_options(text: str, spec: str) -> None:
    if text:
        raise OptionError(
            f"{text!r} has no meaning for an .npz file", where=spec, hint="Its rows are fed as is"
        )


def with_options(spec: str, options: Iterable[tuple[str, str]]) -> str:
    """Return the name of data with further options behind the `?`."""
    said = "&".join(f"{key}={value}" for key, value in options)
    return f"{spec}{'&' if '?' in spec else '?'}{said}" if said else spec


def options_of(spec: str) -> dict[str, str]:
    """Return the options behind the `?` of the name of data."""
    return _options(spec.partition("?")[2])


def with_files(spec: str, found: Callable[[str], str]) -> str:
    """Return the name of data with the files in it, those of labels and masks too, as `found` says.

    Args:
        spec: name of data, with its options.
        found: function from the name of a file to that to write; a text that names no file comes
            back as it is.
    """
    name, mark, text = spec.partition("?")
    pairs = [part.partition("=") for part in text.split("&") if part]
    moved = [f"{k}={found(v) if k in _FILE_OPTIONS else v}" for k, _, v in pairs]
    return f"{found(name)}{mark}{'&'.join(moved)}"


def split_states(spec: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the name of data without its options `state=INPUT=OUTPUT`, and these pairs.

    Raises:
        OptionError: one of them is not of that form.
    """
    name, _, text = spec.partition("?")
    parts = text.split("&") if "state=" in text and not Path(spec).exists() else []
    given = [part.removeprefix("state=") for part in parts if part.startswith("state=")]
    for pair in given:
        if not all(pair.rpartition("=")[::2]):
            raise OptionError(
                f"{pair!r} is not valid", where="--state", hint="Give INPUT=OUTPUT: --state h=hn"
            )
    others = "&".join(part for part in parts if not part.startswith("state="))
    pairs = tuple((a, b) for a, _, b in (pair.rpartition("=") for pair in given))
    return (f"{name}?{others}" if others else name) if parts else spec, pairs


def _options(text: str) -> dict[str, str]:
    """Return the options of `pictures/?resize=crop:224&colour=bgr`."""
    pairs = [part.partition("=") for part in text.split("&") if part]
    return {key: value for key, _, value in pairs}


class StreamSource(Source):
    """Whole batches from user code, which is called once, or anew where nothing can be kept.

    Args:
        make: starts the stream.
        where: name of the data.
        keep: whether batches are kept on disk; those in memory need not be.
    """

    batched = True

    def __init__(self, make: Callable[[], Iterable[Any]], where: str, *, keep: bool = True) -> None:
        self.make, self.where = make, where
        self._store = RowStore() if keep else None

    def _stream(self) -> Iterator[Batch]:
        for index, item in enumerate(self.make()):
            feeds, labels = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
            if isinstance(feeds, Batch):
                yield feeds
                continue
            if not isinstance(feeds, Mapping):
                raise DataError(
                    f"item {index} is a {type(feeds).__name__}",
                    where=self.where,
                    hint="Yield {input name: array}, or a pair of that and labels",
                )
            arrays = {name: np.asarray(a) for name, a in feeds.items()}
            yield Batch(arrays, None if labels is None else np.asarray(labels))

    @functools.cached_property
    def count(self) -> int:
        """Number of batches, counted by one iteration, which keeps them."""
        count = 0
        for batch in first_pass(self._stream(), self.where):
            if self._store is not None:
                labels = {} if batch.labels is None else {_LABEL: batch.labels}
                self._store.put(count, {**batch.feeds, **labels})
            count += 1
        if not count:
            raise DataError("yields no batch", where=self.where)
        return count

    def _kept(self, index: int) -> Batch | None:
        found = None if self._store is None else self._store.get(index)
        return None if found is None else Batch(found, found.pop(_LABEL, None))

    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:  # noqa: ARG002 - items are batches
        """Yield the batches at `rows`, unchanged; the stream starts again where none is kept."""
        assert self.count
        stream: Iterator[Batch] = iter(())
        following = self.count  # number of the stream's next batch
        for row in rows.tolist():
            item = self._kept(row)
            if item is None:
                if row < following:
                    stream, following = self._stream(), 0
                item = next(itertools.islice(stream, row - following, None), None)
                following = row + 1
            if item is None:
                raise DataError(f"yields no batch {row} this time", where=self.where)
            yield item

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of all batches."""
        return digest_of(self.read(np.arange(self.count), 1))


def _open_callable(spec: str) -> Source:
    made = import_callable(spec)()
    source = getattr(made, "source", None)  # of a Dataset, which is made from sources
    if isinstance(source, Source):
        return source
    if isinstance(made, Mapping):
        arrays = {name: np.asarray(a) for name, a in made.items()}
        labels = arrays.pop(LABELS, None)
        return ArraySource(arrays, labels, spec)
    if isinstance(made, Iterator):  # a generator is exhausted after one iteration
        return StreamSource(import_callable(spec), spec)
    if isinstance(made, Iterable):
        return StreamSource(lambda: made, spec, keep=not isinstance(made, Sequence))
    raise InputError(
        f"returned a {type(made).__name__}",
        where=spec,
        hint="Return a Dataset, {input name: array (N, ...)}, or an iterable of batches",
    )


def _open_folder(folder: Path, options: Mapping[str, str]) -> Source:
    shards = [] if options else sorted(folder.glob("*.npz"))
    if shards:
        return ShardedSource([_open_npz(path) for path in shards])
    if recordings(folder):
        return open_waves(folder, options)
    return open_pictures(folder, options)


def _open_table(path: Path, options: Mapping[str, str]) -> Source:
    columns, labels = read_table(path, options)
    if "text" in options:
        texts = [np.array(column.texts) for column in columns.values()]
        return open_texts(texts, labels, options, path)
    return TableSource(columns, labels, path)


def _open_npz(path: Path) -> ArraySource:
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                info.filename.removesuffix(".npy"): read_member(path, archive, info)
                for info in archive.infolist()
            }
    except _DAMAGE as error:
        if path.suffix == ".npy":
            raise DataError(
                "is an .npy file, whose array has no name",
                where=where,
                hint=f"Name it: numpy.savez('{path.stem}.npz', INPUT=numpy.load('{path.name}'))",
            ) from error
        if path.suffix.lower() in IMAGES | RECORDINGS:
            raise DataError(
                "is a single file of one item",
                where=where,
                hint=f"Give the folder that holds all of them: --data {path.parent}",
            ) from error
        raise DataError(
            f"is not an .npz file, or is truncated ({error})",
            where=where,
            hint="Write it with numpy.savez(file, INPUT=array, labels=labels)",
        ) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=where) from error
    labels = arrays.pop(LABELS, None)
    return ArraySource(arrays, labels, where)
