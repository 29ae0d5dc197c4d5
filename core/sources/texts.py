"""Texts as data: a file of lines or a column of a table, read by a `tokenizer.json`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Array, Batch, Rows, Source
from ..errors import DataError, MissingExtraError, OptionError, unknown
from ..model import TensorSpec
from .arrays import ArraySource

#: Tokens of an item at most, where neither the model nor `length` says so.
LENGTH = 512
#: Name of the file that is found beside the texts.
TOKENIZER = "tokenizer.json"
#: Texts of the padding in tokenizers that name none.
_PADDING = ("[PAD]", "<pad>", "<|endoftext|>")


class TextSource(Source):
    """Texts, of which a model is fed the tokens, a mask and the types of segments.

    Attributes:
        texts: columns of texts, one or a pair.
        labels: labels (N,) or None.
        tokenizer: the file of the tokenizer.
        length: tokens of an item at most; 0 for as many as the model takes.
    """

    def __init__(
        self, texts: Sequence[Array], labels: Array | None, tokenizer: Path, length: int, where: str
    ) -> None:
        self.texts, self.labels, self.tokenizer = texts, labels, tokenizer
        self.length, self.where = length, where

    @property
    def count(self) -> int:
        """Number of items."""
        return len(self.texts[0])

    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:
        """Yield tokens, masks and types, each (N, tokens) int64."""
        yield from ArraySource(self._encoded(0), self.labels, self.where).read(rows, batch)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of the texts, the labels and the tokenizer."""
        digest = hashlib.sha256(self.tokenizer.read_bytes() + str(self.length).encode())
        for column in self.texts:
            digest.update("\0".join(column.tolist()).encode())
        digest.update(b"" if self.labels is None else repr(self.labels.tolist()).encode())
        return digest.hexdigest()

    def of_inputs(self, specs: Sequence[TensorSpec]) -> Source:
        """Return what these inputs take: tokens, and mask and types where there are such inputs.

        Raises:
            DataError: no input takes tokens.
        """
        fixed = [s.shape[1] for s in specs if s.shape is not None and len(s.shape) == 2]
        sizes = {size for size in fixed if isinstance(size, int)}
        encoded = self._encoded(sizes.pop() if len(sizes) == 1 else 0)
        feeds = {
            spec.name: encoded[_role(spec.name)].astype(spec.dtype.numpy())
            for spec in specs
            if spec.shape is None or len(spec.shape) == 2
        }
        if not feeds:
            raise DataError(
                f"are texts, and the model has no input of tokens: {', '.join(map(str, specs))}",
                where=self.where,
            )
        return ArraySource(feeds, self.labels, self.where, self.identity)

    @functools.cache  # noqa: B019 - as long as the source, which is kept in any case
    def _encoded(self, fixed: int) -> dict[str, Array]:
        """Return tokens, masks and types, of that length, or of the longest where it is 0."""
        reader = _opened(self.tokenizer)
        padding = _padding(reader)
        most = fixed or self.length or LENGTH
        reader.no_padding()
        reader.enable_truncation(min(most, self.length or most))
        columns = [column.tolist() for column in self.texts]
        items = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        found = reader.encode_batch(items)
        width = fixed or max(1, *(len(item.ids) for item in found))
        shape = (len(found), width)
        made = {
            "input_ids": np.full(shape, padding, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, item in enumerate(found):
            size = len(item.ids)
            made["input_ids"][row, :size] = item.ids
            made["attention_mask"][row, :size] = item.attention_mask
            made["token_type_ids"][row, :size] = item.type_ids
        return made


def _role(name: str) -> str:
    """Return what an input takes, by its name: the tokens where it tells nothing else."""
    plain = name.lower()
    if "mask" in plain:
        return "attention_mask"
    return "token_type_ids" if "type" in plain or "segment" in plain else "input_ids"


def open_texts(
    texts: Sequence[Array], labels: Array | None, options: Mapping[str, str], path: Path
) -> TextSource:
    """Return the texts of a file as data.

    Args:
        texts: one or two columns of them.
        labels: labels (N,) or None.
        options: `tokenizer`: a `tokenizer.json`, by default the one beside the file; `length`:
            tokens of an item at most.
        path: the file.

    Raises:
        OptionError: there is no tokenizer, or an option is not valid.
    """
    named = options.get("tokenizer")
    tokenizer = Path(named) if named else path.parent / TOKENIZER
    if not tokenizer.is_file():
        raise OptionError(
            f"holds texts, and there is no {tokenizer}",
            where=str(path),
            hint=f"Name the tokenizer of the model: {path.name}?tokenizer=tokenizer.json",
        )
    length = options.get("length", "0")
    if not length.isdigit() or len(texts) > 2:
        what = f"length={length!r} is not a number" if len(texts) < 3 else "has over two texts"
        raise OptionError(what, where=str(path), hint="Give length=128, text=a or text=a,b")
    return TextSource(texts, labels, tokenizer, int(length), str(path))


def read_lines(path: Path, options: Mapping[str, str]) -> TextSource:
    """Open a file with a text a line.

    Raises:
        DataError: it cannot be read, or has no text.
        OptionError: an unknown option, or no tokenizer.
    """
    for key in set(options) - {"tokenizer", "length"}:
        raise unknown("option", key, ["tokenizer", "length"], where=str(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"is not a text file ({error})", where=str(path)) from error
    texts = np.array([line for line in lines if line.strip()])
    if not len(texts):
        raise DataError("has no text", where=str(path), hint="Give one a line")
    return open_texts([texts], None, options, path)


def _opened(tokenizer: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("reading texts needs tokenizers", extra="tokenizers") from error
    try:
        return Tokenizer.from_file(str(tokenizer))
    except Exception as error:
        raise DataError(
            f"is not a tokenizer.json ({error})",
            where=str(tokenizer),
            hint="Take the file of that name that came with the model",
        ) from error


def _padding(reader: Any) -> int:
    """Return the token that fills up an item."""
    if reader.padding is not None:
        return int(reader.padding["pad_id"])
    known = (reader.token_to_id(text) for text in _PADDING)
    return next((int(number) for number in known if number is not None), 0)
