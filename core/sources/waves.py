"""Folders of recordings as data: cut into windows, as log-mel spectra, with labels beside them."""

from __future__ import annotations

import csv
import functools
import hashlib
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Array, Batch, Floats, Rows, Source
from ..errors import DataError, MissingExtraError, OptionError, unknown
from .broken import without_broken
from .row_store import RowStore, first_pass

RECORDINGS = frozenset({".wav", ".flac", ".ogg", ".mp3"})
#: Names of inputs that take the sampling rate.
RATE_INPUTS = ("sr", "sample_rate", "sampling_rate")
#: Window and step of a log-mel spectrum, in seconds.
_FRAME, _STEP = 0.025, 0.01


@dataclass(frozen=True)
class Cutting:
    """Form in which a model takes a recording.

    Attributes:
        rate: samples a second; recordings of another rate are resampled.
        window: samples of an item; 0 for a whole recording.
        hop: samples from one item to the next; the window where 0.
        logmel: bands of a log-mel spectrum; 0 for samples.
        scale: factor of samples in -1 to 1; 32768 gives those of 16 bits.
    """

    rate: int = 16000
    window: int = 0
    hop: int = 0
    logmel: int = 0
    scale: float = 1.0

    @classmethod
    def of(cls, options: Mapping[str, str], where: str) -> Cutting:
        """Return the form that options in text tell.

        Raises:
            OptionError: an unknown option, or a value that is not valid.
        """
        fields: dict[str, Any] = {}
        for key, text in options.items():
            if key not in cls.__dataclass_fields__:
                known = [*cls.__dataclass_fields__, "labels"]
                raise unknown("option", key, known, where=where)
            try:
                fields[key] = float(text) if key == "scale" else int(text)
            except ValueError:
                fields[key] = 0
            if not 0 < fields[key] < 1 << 31:
                raise OptionError(f"{key}={text!r} is not a number above 0", where=where)
        return cls(**fields)

    def __call__(self, samples: Floats) -> Array:
        """Return the items of a recording (N, window) or (N, bands, frames), float32."""
        if self.window:
            short = max(0, self.window - len(samples))
            whole = np.pad(samples, (0, short))
            views = np.lib.stride_tricks.sliding_window_view(whole, self.window)
            items = views[:: self.hop or self.window]
        else:
            items = samples[None]
        if self.logmel:
            items = np.stack([log_mel(item, self.rate, self.logmel) for item in items])
        return np.ascontiguousarray(items * (1 if self.logmel else self.scale), np.float32)

    def count(self, length: int) -> int:
        """Return the number of items of a recording of that many samples."""
        if not self.window:
            return 1
        return max(0, length - self.window) // (self.hop or self.window) + 1


class WaveSource(Source):
    """Recordings; the model's input is fed (N, window) or (N, bands, frames) float32."""

    anonymous = "input"
    advice = "Cut the recordings: FOLDER?rate=16000&window=512&hop=128, or logmel=80"

    def __init__(
        self, files: Sequence[Path], labels: Mapping[str, Any], cutting: Cutting, where: str
    ) -> None:
        self.files, self.labels, self.cutting, self.where = files, labels, cutting, where
        self.scalars = dict.fromkeys(RATE_INPUTS, cutting.rate)

    @functools.cached_property
    def _lengths(self) -> dict[Path, int]:
        """Samples of each recording, 0 of one that cannot be read."""

        def lengths() -> dict[str, Array]:
            files = first_pass(self.files, self.where, len(self.files))
            return {"lengths": np.array([self._length(file) for file in files])}

        found = self._store.once(-1, lengths)["lengths"]
        return dict(zip(self.files, found.tolist(), strict=True))

    @functools.cached_property
    def _store(self) -> RowStore:
        """Items of each recording, by its place among the files, and at -1 their lengths."""
        return RowStore(lambda: self.identity)

    def _items(self, file: Path) -> Array:
        """Return the items of a recording, as the model takes them."""
        place = self.files.index(file)

        def cut() -> dict[str, Array]:
            return {"items": self.cutting(self._samples(file))}

        return self._store.once(place, cut)["items"]

    @functools.cached_property
    def left_out(self) -> Sequence[Path]:
        """Recordings that cannot be read or are empty."""
        return [file for file, count in self._lengths.items() if not count]

    @functools.cached_property
    def _usable(self) -> tuple[list[Path], Rows]:
        """Recordings that can be read, and the position behind the last item of each.

        Raises:
            DataError: more than one of a hundred cannot.
        """
        told = "recordings cannot be read or are empty"
        usable = without_broken(self.files, self.left_out, told, self.where)
        return usable, np.cumsum([self.cutting.count(self._lengths[file]) for file in usable])

    def _length(self, file: Path) -> int:
        try:
            return len(self._samples(file))
        except (OSError, EOFError, ValueError, RuntimeError, wave.Error):
            return 0

    def _samples(self, file: Path) -> Floats:
        samples, rate = read_recording(file)
        return resampled(samples, rate, self.cutting.rate)

    @property
    def count(self) -> int:
        """Number of items of all recordings."""
        return int(self._usable[1][-1])

    @property
    def starts(self) -> tuple[int, ...]:
        """Position of the first item of each recording."""
        return (0, *map(int, self._usable[1][:-1]))

    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:
        """Yield the items; none of whole recordings share a batch, their lengths differ."""
        most = batch if self.cutting.window else 1
        kept: list[tuple[Array, Any]] = []
        for file, start, end in self._parts():
            inside = rows[(rows >= start) & (rows < end)] - start
            if not len(inside):
                continue
            items, label = self._items(file), self.labels.get(file.name)
            for row in inside:
                kept.append((items[row], label))
                if len(kept) == most:
                    yield self._batch(kept)
                    kept = []
        if kept:
            yield self._batch(kept)

    def _parts(self) -> Iterator[tuple[Path, int, int]]:
        files, ends = self._usable
        yield from zip(files, self.starts, ends.tolist(), strict=True)

    def _batch(self, kept: Sequence[tuple[Array, Any]]) -> Batch:
        labels = np.array([label for _, label in kept]) if self.labels else None
        return Batch({"input": np.stack([items for items, _ in kept])}, labels)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of all files, names included, of their labels and form."""
        digest = hashlib.sha256(f"{self.cutting}{sorted(self.labels.items())}".encode())
        for file in self.files:
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()


def open_waves(folder: Path, options: Mapping[str, str]) -> WaveSource:
    """Open a folder of recordings.

    Args:
        folder: recordings, with text files of the same names as labels if there are any.
        options: those of `Cutting`, and `labels`: a csv file with the columns file and label.

    Raises:
        DataError: a recording has no label.
        OptionError: an unknown option.
    """
    known = dict(options)
    named = known.pop("labels", None)
    cutting = Cutting.of(known, str(folder))
    files = recordings(folder)
    texts = {f.name: f.with_suffix(".txt") for f in files}
    labels: dict[str, Any] = {}
    if named is not None:
        labels = _labels(Path(named))
    elif any(path.exists() for path in texts.values()):
        labels = {
            name: path.read_text(encoding="utf-8").strip()
            for name, path in texts.items()
            if path.exists()
        }
    without = [file.name for file in files if labels and file.name not in labels]
    if without:
        raise DataError(
            f"{len(without)} of {len(files)} recordings have no label, the first is {without[0]}",
            where=named or str(folder),
        )
    return WaveSource(files, labels, cutting, str(folder))


def recordings(folder: Path) -> list[Path]:
    """Return the recordings of a folder by name."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in RECORDINGS and f.is_file())


def _labels(path: Path) -> dict[str, Any]:
    """Read a csv file of file and label; labels that are all numbers become numbers."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from error
    if rows and [cell.strip().lower() for cell in rows[0][:2]] == ["file", "label"]:
        rows = rows[1:]
    if not rows or any(len(row) < 2 for row in rows):
        raise DataError("has no two columns, file and label", where=str(path))
    values: list[Any] = [row[1].strip() for row in rows]
    for kind in (int, float):
        try:
            values = [kind(value) for value in values]
            break
        except ValueError:
            continue
    return {Path(row[0].strip()).name: value for row, value in zip(rows, values, strict=True)}


def read_recording(file: Path) -> tuple[Floats, int]:
    """Read a recording: samples of one channel (N,) in -1 to 1, and samples a second.

    Raises:
        MissingExtraError: it is not PCM in a .wav file, and soundfile is not installed.
        OSError, EOFError, ValueError, RuntimeError, wave.Error: it is broken.
    """
    try:
        with wave.open(str(file)) as recording:
            width, channels = recording.getsampwidth(), recording.getnchannels()
            frames = recording.readframes(recording.getnframes())
            rate, wanted = recording.getframerate(), recording.getnframes()
    except wave.Error as error:
        if file.suffix.lower() == ".wav" and "unknown format" not in str(error):
            raise
        return _by_soundfile(file)
    if len(frames) != wanted * width * channels:
        raise EOFError(f"{file.name} is cut short")
    raw = np.frombuffer(frames, np.uint8).reshape(-1, width)
    if width == 1:
        values = (raw[:, 0].astype(np.float64) - 128) / 128
    else:
        # Little endian, of 16, 24 or 32 bits: put into the upper bytes of 32.
        padded = np.zeros((len(raw), 4), np.uint8)
        padded[:, 4 - width :] = raw
        values = padded.view("<i4")[:, 0] / float(1 << 31)
    return values.reshape(-1, channels).mean(1), rate


def _by_soundfile(file: Path) -> tuple[Floats, int]:
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtraError(
            "is not PCM in a .wav file, and reading it needs soundfile",
            where=str(file),
            extra="audio",
        ) from error
    samples, rate = soundfile.read(str(file), dtype="float64", always_2d=True)
    return np.asarray(samples).mean(1), int(rate)


def resampled(samples: Floats, rate: int, wanted: int) -> Floats:
    """Return samples at another rate, without what it cannot hold."""
    if rate == wanted or not len(samples):
        return samples
    length = max(1, round(len(samples) * wanted / rate))
    found: Floats = np.fft.irfft(_cut(np.fft.rfft(samples), length // 2 + 1), length)
    return found * (length / len(samples))


def _cut(spectrum: Array, bins: int) -> Array:
    return np.pad(spectrum[:bins], (0, max(0, bins - len(spectrum))))


def log_mel(samples: Floats, rate: int, bands: int) -> Floats:
    """Return the natural logarithm of mel energies (bands, frames): 25 ms, every 10 ms, Hann."""
    size, step = round(_FRAME * rate), round(_STEP * rate)
    whole = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(whole, size)[::step]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size + 1)[:-1], axis=1)))
    found: Floats = np.log(np.maximum(power @ _filters(rate, size, bands), 1e-10)).T
    return found


@functools.lru_cache(8)
def _filters(rate: int, size: int, bands: int) -> Floats:
    """Return triangles (bins, bands), evenly spaced in mel (2595 log10(1 + f/700))."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1)[:, None] * rate / size
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))
