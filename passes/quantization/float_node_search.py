"""Search of the nodes that have to stay float: bisection of a ranking, then steps back to int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from trimtab.core.errors import PassError
from trimtab.core.model import Model

from .group_ranking import Ranked
from .judge import MARGIN_OF_PROMISE
from .unit_gains import LEAST_GAIN, Gain

#: Builds the model in which these nodes, and those the user excluded, stay float.
Write = Callable[[Sequence[str]], ir.Model]

#: Evaluations spent on returning single units to int8.
STEPS_BACK = 6


@dataclass
class FloatNodeSearch:
    """Evaluations of the metric, at most one for each set of float nodes.

    Attributes:
        model: the float model.
        write: builds the model in which nodes stay float.
        metric: name of the metric.
        max_drop: how much it may fall.
        drop_of: function from a candidate to how much it falls.
        closest: the least drop is wanted where `max_drop` cannot be held, and nothing is tried that
            is not worth it.
        float_always: nodes that stay float whatever is chosen.
        worth: what units gain, by their first node, where that was measured.
        units: units with their sensitivity, those first that become float first.
        curve: for each evaluation the number of float nodes and the drop.
        drops: drop of each set of float nodes.
    """

    model: Model
    write: Write
    metric: str
    max_drop: float
    drop_of: Callable[[Model], float]
    closest: bool
    float_always: Sequence[str] = ()
    worth: Mapping[str, float] = field(default_factory=dict)
    units: Sequence[Sequence[Ranked]] = ()
    curve: list[dict[str, Any]] = field(default_factory=list)
    drops: dict[frozenset[str], float] = field(default_factory=dict)

    def take(self, float_always: Sequence[str], gains: Sequence[Gain]) -> None:
        """Leave nodes float from now on; with gains, what is in int8 has to be worth it."""
        self.float_always = float_always
        self.worth = {unit[0]: gain for unit, gain in gains} if self.closest else {}

    def choose(self, rank: Callable[[], Sequence[Sequence[Ranked]]]) -> list[str] | None:
        """Return the nodes that stay float, of units that become float in the order of their rank.

        Nothing is ranked where those that are float always suffice, or nothing else would be worth
        it. None where no choice holds the drop.
        """
        if self.allows([]):
            return [*self.float_always]
        if self.worth and sum(self.worth.values()) - min(self.worth.values()) < LEAST_GAIN:
            return None
        self.units = rank()
        order = [[node for node, _ in unit] for unit in self.units]
        count = self.smallest_prefix(order)
        least = min(self.drops.values())
        if count is None and self.closest and least <= self.max_drop / MARGIN_OF_PROMISE:
            # A decision as close as a tie turns with any layer in int8: no margin is left then.
            self.max_drop = least
            count = self.smallest_prefix(order)
        if count is None:
            return None
        return [*self.float_always, *_flat(self.return_to_int8(order[:count]))]

    def closest_to_float(self, nodes: Sequence[str]) -> list[str]:
        """Return the float nodes of the least drop, in this order.

        Raises:
            PassError: that is not wanted.
        """
        fewest = min(self.drops, key=lambda key: (self.drops[key], len(key)))
        if self.closest:
            return [node for node in nodes if node in fewest]
        raise PassError(
            f"{self.metric} falls by at least {self.drops[fewest]:.4f} with anything in int8, "
            f"{self.max_drop:g} is allowed",
            where=f"{self.model.name}, max_drop={self.max_drop:g}",
            hint="Allow a larger drop, or quantize the weights alone (quantize-weights)",
        )

    def allows(self, units: Sequence[Sequence[str]]) -> bool:
        """Return whether the metric stays within the drop with these units float."""
        float_nodes = [*self.float_always, *_flat(units)]
        key = frozenset(float_nodes)
        if key not in self.drops:
            candidate = dataclasses.replace(self.model, ir=self.write(float_nodes))
            self.drops[key] = self.drop_of(candidate)
            self.curve.append({"float": len(key), "drop": round(self.drops[key], 6)})
        return self.drops[key] <= self.max_drop

    def smallest_prefix(self, order: Sequence[Sequence[str]]) -> int | None:
        """Return how many of the most sensitive units have to stay float; None if all do."""
        if self.allows([]):  # as it may with another limit
            return 0
        low, high = 0, self._most_float(order)  # low does not suffice
        if high < 1 or not self.allows(order[:high]):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.allows(order[:middle]) else (middle, high)
        return high

    def _most_float(self, order: Sequence[Sequence[str]]) -> int:
        """Return how many of the units may be float, so that the others are still worth it."""
        gain = 0.0
        for count in range(len(order) - 1, 0, -1):
            gain += self.worth.get(order[count][0], LEAST_GAIN)
            if gain >= LEAST_GAIN:
                return count
        return 0

    def return_to_int8(self, float_units: Sequence[Sequence[str]]) -> list[Sequence[str]]:
        """Return the units that still have to stay float; the least sensitive are tried first."""
        kept = list(float_units)
        # The bisection has just shown that the last one is needed.
        waiting, size = kept[-2::-1], 1
        for _ in range(STEPS_BACK):
            back = waiting[:size]
            if not back:
                break
            fewer = [unit for unit in kept if unit not in back]
            if self.allows(fewer):
                kept, waiting, size = fewer, waiting[size:], 2 * size
            elif size > 1:
                size //= 2
            else:
                waiting = waiting[1:]
        return kept


def _flat(units: Sequence[Sequence[str]]) -> list[str]:
    return [node for unit in units for node in unit]
