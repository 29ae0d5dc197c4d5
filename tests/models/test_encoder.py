"""The sentence encoder: unit vectors that padding does not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trimtab.core.errors import OptionError
from trimtab.models import text_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return text_encoder(vocabulary=50, width=16, depth=2, heads=2, max_length=24).eval()


def test_embeddings_have_length_one(encoder: torch.nn.Module) -> None:
    ids = torch.arange(12).reshape(3, 4)
    lengths = encoder(ids, torch.ones_like(ids)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3))


def test_padding_changes_nothing(encoder: torch.nn.Module) -> None:
    ids = torch.tensor([[7, 3, 9, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    alone = encoder(ids[:, :3], mask[:, :3])
    torch.testing.assert_close(encoder(ids, mask), alone)
    other = torch.tensor([[7, 3, 9, 42, 11]])
    torch.testing.assert_close(encoder(other, mask), alone)


def test_order_of_words_matters(encoder: torch.nn.Module) -> None:
    ids = torch.tensor([[7, 3, 9], [9, 3, 7]])
    first, second = encoder(ids, torch.ones_like(ids))
    assert not torch.allclose(first, second, atol=1e-3)


def test_sentence_of_padding_alone_stays_finite(encoder: torch.nn.Module) -> None:
    ids = torch.zeros(1, 4, dtype=torch.int64)
    assert encoder(ids, ids).isfinite().all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(OptionError, match="a width of 16 does not split into 5 heads"):
        text_encoder(width=16, heads=5)


@pytest.mark.slow
def test_exports_with_free_batch_and_length(encoder: torch.nn.Module) -> None:
    import onnxruntime as ort

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=24)}
    ids = torch.arange(20).reshape(2, 10)
    exported = torch.onnx.export(
        encoder, (ids, torch.ones_like(ids)), dynamo=True, dynamic_shapes=(axes, axes)
    )
    assert exported is not None
    session = ort.InferenceSession(exported.model_proto.SerializeToString())
    ids = torch.arange(21).reshape(3, 7)
    mask = (torch.arange(7) < torch.tensor([[7], [3], [1]])).long()
    (result,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(result, encoder(ids, mask).numpy(), atol=1e-5)
