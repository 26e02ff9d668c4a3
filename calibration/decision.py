"""From scores to a decision: OK, DEFECT or UNSURE.

The rule is bound by hash to the model and the preprocessing whose scores it was fitted on: thresholds of one
model mean nothing for another. numpy is imported where scores are at hand: a device that verifies a bundle has none.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class Decision(str, Enum):
    """What the model says of a part. Only OK can become a PASS."""

    OK = "OK"
    DEFECT = "DEFECT"
    UNSURE = "UNSURE"


@dataclass(frozen=True)
class DecisionRule:
    """Temperature and thresholds for one exported model.

    Attributes:
        classes: names in the order of the model's outputs, at least two, all different.
        ok_class: the one of them that means a good part.
        temperature: logits are divided by it, > 0.
        ok_below: a defect probability <= this is OK.
        defect_above: a defect probability >= this is DEFECT; in between is UNSURE. ok_below < defect_above.
        model_sha256, preprocess_sha256: what the rule was fitted on.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    classes: tuple[str, ...]
    ok_class: str
    temperature: float
    ok_below: float
    defect_above: float
    model_sha256: str
    preprocess_sha256: str

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"decision: classes are {list(self.classes)}; at least two different names are needed")
        if self.ok_class not in self.classes:
            raise ValueError(f"decision: ok_class {self.ok_class!r} is none of the classes {list(self.classes)}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"decision: temperature is {self.temperature}; it must be a number above 0")
        # written so that NaN fails too
        if not (0.0 <= self.ok_below < self.defect_above <= 1.0):
            raise ValueError(
                f"decision: ok_below is {self.ok_below} and defect_above {self.defect_above}; "
                "0 <= ok_below < defect_above <= 1 must hold"
            )

    @property
    def ok_index(self) -> int:
        """Position of the OK class among the model's outputs."""
        return self.classes.index(self.ok_class)

    @cached_property
    def _not_ok(self) -> NDArray[np.intp]:
        """Positions of all other classes."""
        import numpy as np

        return np.delete(np.arange(len(self.classes)), self.ok_index)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Calibrated class probabilities, float64 (n, classes), of logits (n, classes).

        Raises:
            ValueError: another number of classes than the rule's.
        """
        import numpy as np

        from calibration.metrics import softmax

        z = np.asarray(logits, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != len(self.classes):
            raise ValueError(f"logits have shape {z.shape}; expected (n, {len(self.classes)})")
        with np.errstate(invalid="ignore", over="ignore"):
            return softmax(z / self.temperature)

    def defect_probability(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Probability that the part is not good, float64 (n,): the sum over all classes but the OK one.

        NaN where a logit is not finite.
        """
        import numpy as np

        p = self.probabilities(logits)
        defect: NDArray[np.float64] = np.add.reduce(p.take(self._not_ok, axis=1), axis=1)
        finite = np.isfinite(logits)
        if not finite.all():
            defect[~finite.all(axis=1)] = np.nan
        return np.minimum(defect, 1.0, out=defect)

    def decide(self, logits: ArrayLike) -> list[Decision]:
        """One decision per row of logits (n, classes). A row that is not finite is UNSURE."""
        return [self.decide_probability(p) for p in self.defect_probability(logits).tolist()]

    def decide_probability(self, defect_probability: float) -> Decision:
        """Decision for one defect probability; NaN is UNSURE."""
        if defect_probability <= self.ok_below:
            return Decision.OK
        if defect_probability >= self.defect_above:
            return Decision.DEFECT
        return Decision.UNSURE
