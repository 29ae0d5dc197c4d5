"""A compact transformer encoder for sentences.

Vaswani et al., "Attention Is All You Need", 2017, in the form of Devlin et al., "BERT", 2018
(learned positions, GELU, normalisation after the sum), with the mean over the tokens as embedding
(Reimers and Gurevych, "Sentence-BERT", 2019).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trimtab.core.errors import OptionError

# Score of padding. Its exp is 0 in float32 and it fits float16; minus infinity would make a row of
# padding alone NaN.
MASKED = -10_000.0


class SelfAttention(nn.Module):
    """Scaled dot-product attention in several heads: softmax(q k' / sqrt(d)) v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend: (N, S, width), bias of the scores (N, 1, 1, S) -> (N, S, width)."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, S, d)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        out: Tensor = self.output(mixed)
        return out


class EncoderLayer(nn.Module):
    """Attention and a perceptron of `hidden` units, each with a shortcut, then normalised."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Apply the layer: (N, S, width), bias of the scores (N, 1, 1, S) -> (N, S, width)."""
        x = self.norm1(x + self.dropout(self.attention(x, bias)))
        out: Tensor = self.norm2(x + self.dropout(self.mlp(x)))
        return out


class TextEncoder(nn.Module):
    """Encoder of token ids and their mask to one unit vector a sentence; see `text_encoder`."""

    def __init__(
        self, vocabulary: int, width: int, depth: int, heads: int, max_length: int, dropout: float
    ) -> None:
        if width % heads:
            raise OptionError(
                f"a width of {width} does not split into {heads} heads",
                where="text_encoder",
                hint="Choose heads that divide the width",
            )
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(max_length, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        layers = (EncoderLayer(width, heads, 4 * width, dropout) for _ in range(depth))
        self.layers = nn.ModuleList(layers)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)  # as BERT does
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode token ids (N, S) and mask (N, S), 1 for words and 0 for padding -> (N, width)."""
        words = attention_mask.to(self.positions.weight.dtype)
        bias = (1.0 - words)[:, None, None, :] * MASKED
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.dropout(self.norm(self.tokens(input_ids) + self.positions(places)))
        for layer in self.layers:
            x = layer(x, bias)
        kept = words[:, :, None]
        # At least one keeps the mean of a sentence without words finite.
        mean = (x * kept).sum(1) / kept.sum(1).clamp(min=1.0)
        return functional.normalize(mean, dim=-1)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return ids and mask (1, S) of one sentence, S up to 32, the same each time."""
        length = min(32, self.positions.num_embeddings)
        generator = torch.Generator().manual_seed(0)
        tokens = self.tokens.num_embeddings
        ids = torch.randint(tokens, (1, length), generator=generator, device="cpu")
        mask = torch.ones(1, length, dtype=torch.int64, device="cpu")
        device = self.tokens.weight.device
        return ids.to(device), mask.to(device)

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Return the axes of free size by input, for the exporter."""
        return {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}


def text_encoder(
    vocabulary: int = 8192,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    *,
    max_length: int = 256,
    dropout: float = 0.1,
) -> TextEncoder:
    """Build a sentence encoder: 1.9 M parameters, 1.1 M of them embeddings.

    Args:
        vocabulary: number of token ids.
        width: features of a token, and length of the embedding.
        depth: layers.
        heads: attention heads, a divisor of `width`.
        max_length: longest sequence.
        dropout: share of each branch that training drops.

    Raises:
        OptionError: `heads` does not divide `width`.
    """
    return TextEncoder(vocabulary, width, depth, heads, max_length, dropout)
