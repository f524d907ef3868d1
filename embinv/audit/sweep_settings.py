"""Which defences a sweep measures, at which settings, and with how much of everything."""

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from embinv.audit.adaptation import AdaptationSettings, fitting
from embinv.defences.base import Defence
from embinv.defences.noise import Noise
from embinv.defences.plain import Plain
from embinv.defences.quantisation import Binary, Int8, Product
from embinv.defences.rotation import Rotation
from embinv.defences.truncation import PCA, Matryoshka


class SweepSettings(BaseModel):
    """The settings of `embinv.audit.sweep.sweep`. An empty list or false leaves a defence out.

    What is given must fit the vectors; of what is not given, what does not fit is left out (`fitting`).
    """

    model_config = ConfigDict(extra="forbid")

    # --- the defences
    noise: tuple[PositiveFloat, ...] = Field(
        default=(0.02, 0.05, 0.1, 0.2, 0.5, 1.0), description="strengths, as a share of a vector's norm"
    )
    int8: bool = True
    binary: bool = True
    product: tuple[PositiveInt, ...] = Field(
        default=(4, 8, 16),
        description="dimensions that share a code: divisors of D; of 384 dimensions 96, 48 and 24 codes",
    )
    product_bits: int = Field(default=8, ge=1, le=16, description="of one code; needs 2^bits known texts")
    matryoshka: tuple[PositiveInt, ...] = Field(default=(2, 4, 8), description="what D is divided by")
    pca: tuple[PositiveInt, ...] = Field(default=(2, 4, 8), description="what D is divided by")
    rotation: bool = True
    redaction: bool = Field(default=True, description="where an encoder and a finder of spans are there")
    # --- the attackers
    strategy: str | None = Field(default=None, description="of decoding; null: the inverter's usual one")
    steps: int = Field(default=8, gt=0, description="passes of decoding")
    adaptation: AdaptationSettings = Field(
        default_factory=AdaptationSettings, description="of the attacker who adapts; steps 0 leaves him out"
    )
    known_pairs: tuple[PositiveInt, ...] = Field(
        default=(50, 100, 200, 500, 1000, 2000),
        description="pairs that are known of a rotated store; more than there are known texts are left out",
    )
    # --- how much
    rows: int = Field(default=500, gt=10, description="held-out texts at most")
    known_rows: int = Field(default=5000, gt=1, description="texts of the attacker's own at most")
    seed: int = Field(default=0, ge=0)

    def fitting(self, dim: int, texts: int) -> tuple["SweepSettings", list[str]]:
        """These settings as they fit vectors of D numbers, where what was not given may be changed.

        Args:
            dim: D.
            texts: of the attacker's own.

        Returns:
            The settings, and a sentence for each change.
        """
        usual = {
            "product": lambda size: self._misfit_of_product(size, dim, texts),
            "matryoshka": lambda share: None if share <= dim else f"needs {share} dimensions, there are {dim}",
            "pca": lambda share: self._misfit_of_pca(share, dim, texts),
        }
        kept, changed = {}, []
        for name in (name for name in usual if name not in self.model_fields_set):
            misfits = {each: usual[name](each) for each in getattr(self, name)}
            kept[name] = tuple(each for each, misfit in misfits.items() if misfit is None)
            changed += [f"{name} {each} is left out: {misfit}" for each, misfit in misfits.items() if misfit]
        adaptation = fitting(self.adaptation, texts)
        if adaptation != self.adaptation:
            changed.append(
                f"the attacker who adapts takes steps of {adaptation.batch_size} texts, as there are {texts}"
            )
        return self.model_copy(update=kept | {"adaptation": adaptation}), changed

    def _misfit_of_product(self, size: int, dim: int, texts: int) -> str | None:
        if dim % size:
            return f"no divisor of {dim} dimensions"
        fewest = Product(dim // size, self.product_bits).fewest
        given = "product_bits" in self.model_fields_set
        return (
            f"needs {fewest} texts of the attacker's own, there are {texts}" if texts < fewest and not given else None
        )

    def _misfit_of_pca(self, share: int, dim: int, texts: int) -> str | None:
        if share > dim:
            return f"needs {share} dimensions, there are {dim}"
        fewest = dim // share
        return f"needs {fewest} texts of the attacker's own, there are {texts}" if texts < fewest else None

    def defences(self, dim: int) -> list[Defence]:
        """Those that change vectors of D numbers, no defence first.

        Raises:
            ValueError: D cannot be parted or cut so; the message names the setting.
        """
        for size in self.product:
            if dim % size:
                raise ValueError(f"product {size}: is no divisor of {dim} dimensions; give such, as in product [4, 8]")
        for name, shares in (("matryoshka", self.matryoshka), ("pca", self.pca)):
            for share in shares:
                if not 1 < share <= dim:
                    raise ValueError(f"{name} {share}: give what {dim} dimensions can be divided by, from 2")
        return [
            Plain(),
            *(Noise(scale) for scale in self.noise),
            *([Int8()] if self.int8 else []),
            *([Binary()] if self.binary else []),
            *(Product(dim // size, self.product_bits) for size in self.product),
            *(Matryoshka(dim // share) for share in self.matryoshka),
            *(PCA(dim // share) for share in self.pca),
            *([Rotation()] if self.rotation else []),
        ]
