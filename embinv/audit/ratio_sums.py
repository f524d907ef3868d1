"""A ratio over texts with its standard error, from running sums: what is kept does not grow with the texts.

The same figure as `embinv.metrics.figures.ratio_figure` (Cochran 1977, eq. 2.46), of counts. Sums of whole numbers are
exact, so the order of the texts does not matter.
"""

from math import sqrt

from embinv.metrics.figures import Figure


class RatioSums:
    """Filled text by text.

    Attributes:
        n: texts.
        part: sum of the parts.
        whole: sum of the wholes.
    """

    def __init__(self) -> None:
        self.n = self.part = self.whole = 0
        self._parts_squared = self._products = self._wholes_squared = 0

    def add(self, part: int, whole: int) -> None:
        """Counts a text of which `part` of `whole` hold, at least one."""
        assert whole > 0
        self.n += 1
        self.part += part
        self.whole += whole
        self._parts_squared += part * part
        self._products += part * whole
        self._wholes_squared += whole * whole

    def figure(self) -> Figure:
        """The ratio, without what each text brings to it.

        Raises:
            ValueError: fewer than two texts.
        """
        if self.n < 2:
            raise ValueError(f"a standard error needs at least 2 texts, got {self.n}")
        part, whole = self.part, self.whole
        residual = (  # sum of (part - ratio * whole)^2 over texts, times whole^2
            self._parts_squared * whole**2 - 2 * part * whole * self._products + part**2 * self._wholes_squared
        )
        variance = residual / whole**2 / (self.n - 1)
        return Figure(part / whole, sqrt(variance / self.n) / (whole / self.n), self.n)
