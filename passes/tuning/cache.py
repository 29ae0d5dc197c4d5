"""Cache of measured gains: of a rule, by class of machines, precision and shape of its sites."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.core.cache import read_figures
from trimtab.core.context import Ratio
from trimtab.core.errors import OutputError
from trimtab.core.files import write_text
from trimtab.core.target import Target, kernel_class

Key = tuple[str, str]
#: Separator of a site's shape and the sizes of the model's inputs, where the shape is not fixed.
AT = "@"
#: Characters of a text of fixed shapes.
FIXED = frozenset("0123456789x,")


@dataclass
class Cache:
    """Known gains, written after each measurement, so that an interruption loses nothing.

    Attributes:
        path: file of the cache; None keeps everything in memory.
        place: class of machines and precision.
        sizes: sizes of the inputs that are measured with, on which the gain of a site with free
            axes depends. Empty where they are not known: then the least gain at any sizes counts.
        gains: speed-up by rule and shape of the site.
    """

    path: Path | None
    place: str
    sizes: str = ""
    gains: dict[Key, Ratio] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str, target: Target, *, quantized: bool, sizes: str = "") -> Cache:
        """Read the gains of this place; none where the file is absent or cannot be read."""
        place = f"{kernel_class(target)}, {'int8' if quantized else 'float'}"
        known = read_figures(Path(path)).get(place, {}) if path else {}
        gains = {}
        for key, value in known.items():
            rule, _, shape = key.partition(" | ")
            gains[rule, shape] = Ratio(*value)
        return cls(Path(path) if path else None, place, sizes, gains)

    def known(self, rule: str, shapes: Iterable[str]) -> Ratio | None:
        """Return the least gain that a rule had at such sites; None where one is unknown."""
        found = [self._gains_at(rule, shape) for shape in shapes]
        if not found or not all(found):
            return None
        return min((r for ratios in found for r in ratios), key=lambda r: r.value)

    def _gains_at(self, rule: str, shape: str) -> list[Ratio]:
        key = self._key(rule, shape)
        if self.sizes or key in self.gains:
            return [self.gains[key]] if key in self.gains else []
        start = f"{shape} {AT} "
        return [r for (name, at), r in self.gains.items() if name == rule and at.startswith(start)]

    def _key(self, rule: str, shape: str) -> Key:
        """Return the key of a gain; with free axes it depends on the sizes of the inputs."""
        free = set(shape.partition(" ")[2].partition(" ")[2].replace("scalar", "")) - FIXED
        return rule, f"{shape} {AT} {self.sizes}" if free and self.sizes else shape

    def learn(self, rule: str, shapes: Iterable[str], ratio: Ratio) -> None:
        """Store a measured gain."""
        self.gains |= {self._key(rule, shape): ratio for shape in shapes}
        if self.path is None:
            return
        # Read again: another run may have written meanwhile. A failure to write is ignored.
        everything = read_figures(self.path)
        everything[self.place] = {
            f"{rule} | {shape}": [round(v, 4) for v in (r.value, r.low, r.high)]
            for (rule, shape), r in sorted(self.gains.items())
        }
        with contextlib.suppress(OutputError):
            write_text(self.path, json.dumps(everything, indent=1, sort_keys=True) + "\n")
