"""Folders of recordings: formats, windows, spectra, labels, sequences, broken files."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.sources.waves import log_mel, read_recording, resampled

TONE = np.sin(2 * np.pi * 440 * np.arange(1600) / 16000) * 0.5


def record(path: Path, samples: Array, *, width: int = 2, rate: int = 16000, channels: int = 1):
    """Write samples in -1 to 1 as PCM of that many bytes."""
    if width == 1:
        data = np.round(samples * 127 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(samples * (1 << 31) * 0.999).astype("<i4")
        data = whole.view(np.uint8).reshape(-1, 4)[:, 4 - width :].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)


@pytest.mark.parametrize(("width", "error"), [(1, 0.02), (2, 2e-3), (3, 2e-3), (4, 2e-3)])
def test_samples_of_each_width(tmp_path: Path, width: int, error: float) -> None:
    record(tmp_path / "a.wav", TONE, width=width)
    samples, rate = read_recording(tmp_path / "a.wav")
    assert rate == 16000
    assert np.abs(samples - TONE).max() < error


def test_channels_are_averaged(tmp_path: Path) -> None:
    record(tmp_path / "a.wav", np.repeat([0.5, -0.5, 0.25, 0.25], 2), channels=2)
    record(tmp_path / "b.wav", np.array([0.5, -0.5, 0.25, 0.75]), channels=2)
    assert read_recording(tmp_path / "b.wav")[0] == pytest.approx([0, 0.5], abs=2e-3)
    assert len(read_recording(tmp_path / "a.wav")[0]) == 4


def test_a_tone_stays_at_another_rate_and_what_cannot_be_held_goes() -> None:
    expected = np.sin(2 * np.pi * 440 * np.arange(800) / 8000) * 0.5
    assert np.abs(resampled(TONE, 16000, 8000) - expected)[50:-50].max() < 0.01
    high = np.sin(2 * np.pi * 6000 * np.arange(1600) / 16000)
    assert np.abs(resampled(high, 16000, 8000)).max() < 1e-6


def test_a_tone_is_in_its_mel_band() -> None:
    found = log_mel(TONE, 16000, 40)
    assert found.shape == (40, 8)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42) / 2595) - 1)
    band = int(found.mean(1).argmax())
    assert edges[band] < 440 < edges[band + 2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    record(tmp_path / "a.wav", TONE[:1000])
    record(tmp_path / "b.wav", TONE[:700] / 2)
    return tmp_path


def test_windows_of_all_recordings(folder: Path) -> None:
    data = Dataset.open(f"{folder}?window=400&hop=200")
    (batch,) = data
    assert batch.feeds["input"].shape == (4 + 2, 400)
    assert batch.feeds["input"][1] == pytest.approx(TONE[200:600], abs=2e-3)
    assert batch.feeds["input"][5] == pytest.approx(TONE[200:600] / 2, abs=2e-3)
    assert data.source.starts == (0, 4)
    assert next(iter(Dataset.open(f"{folder}?window=400&logmel=20"))).feeds["input"].shape == (
        3,
        20,
        1,
    )
    assert [b.feeds["input"].shape for b in Dataset.open(folder)] == [(1, 1000), (1, 700)]


def test_each_recording_is_a_sequence_and_the_rate_is_fed(folder: Path) -> None:
    model = model_of(
        """(float[n,1,400] x, float[n,1,1] sum, int64 sr) => (float[n,1,1] y, float[n,1,1] sum_out)
        <int64[1] axes = {2}> {
            level = ReduceSum (x, axes)
            f = Cast <to: int = 1> (sr)
            scaled = Div (level, f)
            sum_out = Add (sum, scaled)
            y = Identity (sum_out)
        }"""
    )
    data = Dataset.open(f"{folder}?window=400&hop=200").bind(model)
    fed = [batch.feeds for batch in data]
    assert fed[0]["x"].shape == (1, 1, 400)
    assert fed[0]["sr"] == 16000
    sums = np.array([f["x"].sum() / 16000 for f in fed])
    expected = [0, sums[0], sums[:2].sum(), sums[:3].sum(), 0, sums[4]]
    assert [float(f["sum"].reshape(())) for f in fed] == pytest.approx(expected, abs=1e-6)


def test_labels_from_a_table_or_from_texts(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\nb.wav,1\na.wav,0\n")
    named = next(iter(Dataset.open(f"{folder}?window=400&labels={folder / 'labels.csv'}")))
    assert named.labels is not None
    assert named.labels.tolist() == [0, 0, 1]
    (folder / "a.txt").write_text("one\n")
    (folder / "b.txt").write_text("two\n")
    texts = [b.labels.tolist() for b in Dataset.open(folder) if b.labels is not None]
    assert texts == [["one"], ["two"]]
    (folder / "b.txt").unlink()
    with pytest.raises(DataError, match=r"1 of 2 recordings have no label, the first is b\.wav"):
        Dataset.open(folder)


def test_broken_recordings_are_counted_and_named(folder: Path) -> None:
    whole = (folder / "b.wav").read_bytes()
    (folder / "b.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1 of 2 recordings cannot be read .* first is b\.wav"):
        len(Dataset.open(folder))
    (folder / "b.wav").write_bytes(b"not a recording")
    with pytest.raises(DataError, match=r"first is b\.wav"):
        len(Dataset.open(folder))
    for n in range(100):
        record(folder / f"c{n}.wav", TONE[:50])
    assert len(Dataset.open(folder)) == 101


def test_options_that_are_not_valid_are_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match="Did you mean 'window'"):
        Dataset.open(f"{folder}?windows=400")
    with pytest.raises(OptionError, match="hop='-1' is not a number above 0"):
        Dataset.open(f"{folder}?hop=-1")
