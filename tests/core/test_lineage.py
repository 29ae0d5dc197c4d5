"""Lineages in the metadata of files."""

from __future__ import annotations

import base64
import zlib

import pytest
from graphs import model_of

from trimtab.core.lineage import LINEAGE_KEY, LONG, Step, take_lineage, with_lineage

TEXT = "(float[2] x) => (float[2] y) { y = Relu (x) }"


def stored(text: str) -> tuple[Step, ...]:
    model = model_of(TEXT).ir
    model.metadata_props[LINEAGE_KEY] = text
    return take_lineage(model)


def test_a_long_lineage_is_small_in_a_file_and_whole_after_it() -> None:
    names = [f"model/encoder/layer.{n}/attention/MatMul" for n in range(400)]
    step = Step("quantize-auto", {"samples": 8}, "a" * 64, {"declined": [[n, "é"] for n in names]})
    made = with_lineage(model_of(TEXT).ir, [step])
    text = made.metadata_props[LINEAGE_KEY]
    assert LONG < len(text) < 5_000 < sum(map(len, names))
    assert stored(text) == (Step.from_json(step.to_json()),)
    assert text == with_lineage(model_of(TEXT).ir, [step]).metadata_props[LINEAGE_KEY]


def test_a_short_lineage_is_text_that_others_read() -> None:
    made = with_lineage(model_of(TEXT).ir, [Step("simplify", {}, "a" * 64)])
    assert made.metadata_props[LINEAGE_KEY].startswith('[{"input": "aaaa')


def packed(content: bytes) -> str:
    return "zlib:" + base64.b64encode(zlib.compress(content, 9)).decode()


@pytest.mark.parametrize(
    "text",
    ["zlib:", "zlib:????", "zlib:AAAA", packed(b"\xff"), packed(bytes(1 << 27)), "é", "{}"],
)
def test_a_damaged_lineage_is_none(text: str) -> None:
    assert stored(text) == ()
