"""Texts of errors."""

from __future__ import annotations

from trimtab.core.errors import ModelError


def test_a_message_of_others_that_ends_with_a_full_stop_has_one() -> None:
    assert str(ModelError("onnxruntime refuses it.", hint="Look")) == "onnxruntime refuses it. Look"
    assert str(ModelError("onnxruntime refuses it.")) == "onnxruntime refuses it."
