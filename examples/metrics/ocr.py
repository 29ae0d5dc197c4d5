"""OCR of amounts: a line counts where its number is right to the cent, however it is written.

    python -m examples.metrics.ocr
    trimtab eval MODEL --data DATA --metric examples.metrics.ocr:AMOUNT

The labels are texts. The lines are read from probabilities along time (CTC): repetitions merged,
blanks dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import helper

from examples.metrics.small import model_of, rng, shown
from trimtab import Dataset, Metric, Model
from trimtab.core.data import Array

#: Symbol 0 is the blank.
ALPHABET = ["", *"0123456789., "]
STEPS, FEATURES = 24, 24


def read(probabilities: Array) -> str:
    """Return the line of (time, symbols)."""
    best = probabilities.argmax(-1)
    fresh = np.append(True, best[1:] != best[:-1])
    return "".join(ALPHABET[k] for k in best[fresh])


def amount(text: str) -> float | None:
    """Return the number of a text such as 1,234.50; None where it has none."""
    try:
        return round(float(text.replace(",", "").replace(" ", "")), 2)
    except ValueError:
        return None


def right(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return 1 or 0 (N,): whether the amount is right."""
    pairs = zip(outputs["lines"], labels.tolist(), strict=True)
    return np.array([amount(read(line)) == amount(text) for line, text in pairs], np.float64)


AMOUNT = Metric("amounts right", right, itemwise=True)


def example() -> tuple[Model, Dataset, Dataset]:
    """Return a reader of drawn symbols, evaluation data, and calibration data."""
    random = rng()
    shapes = random.normal(size=(len(ALPHABET), FEATURES)).astype(np.float32)
    texts = [f"{value:,.2f}" for value in random.uniform(0, 99999, 200)]
    rows = np.repeat(shapes[:1], 200 * STEPS, 0).reshape(200, STEPS, FEATURES)
    for row, text in zip(rows, texts, strict=True):
        for place, symbol in enumerate(text):
            row[2 * place] = shapes[ALPHABET.index(symbol)]
    rows = (rows + 0.8 * random.normal(size=rows.shape)).astype(np.float32)
    weights = {"w": shapes.T.copy(), "b": -0.5 * np.square(shapes).sum(1)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"], "symbols"),
        helper.make_node("Add", ["raw", "b"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["lines"], axis=2),
    ]
    inputs, outputs = {"x": ["N", STEPS, FEATURES]}, {"lines": ["N", STEPS, len(ALPHABET)]}
    model = model_of(nodes, inputs, outputs, weights)
    evaluation = Dataset.of_arrays({"x": rows[:150]}, np.array(texts[:150]))
    return model, evaluation, Dataset.of_arrays({"x": rows[150:]})


def main() -> dict[str, float]:
    return shown(AMOUNT, *example())


if __name__ == "__main__":
    main()
