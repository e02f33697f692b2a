"""What the format of an explanation says of a dictionary's features, and the types that both use (:mod:`.schema`)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Birth", "Example", "Feature", "Index", "Number", "Probability", "ShownDictionary", "Split", "Strict"]

Probability = Annotated[float, Field(ge=0, le=1, strict=True)]
Number = Annotated[float, Field(strict=True)]
Index = Annotated[int, Field(ge=0, strict=True)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Example(Strict):
    """A token of a corpus on which a feature fires most, and what stands around it."""

    before: str
    token: str
    after: str
    activation: Number


class Birth(Strict):
    """When a feature appeared: absent at the step ``absent`` (null if it was there from the first), present at the other."""

    absent: Index | None
    present: Index


class Feature(Strict):
    """What is known of one feature; ``birth`` is null where none was found beyond its null."""

    feature: Index
    birth: Birth | None
    examples: tuple[Example, ...]


class ShownDictionary(Strict):
    """The dictionary whose features are shown.

    Attributes:
        name: of the dictionary.
        method: how it was made.
        site, layer: whose activations it describes.
        after: how many layers have written before it; features lie between layer ``after - 1`` and ``after``.
        joint: whether one code explains all of its checkpoints (a crosscoder).
        size: how many features it has.
        note: what it covers, in a sentence.
        features: those that some checkpoint shows.
    """

    name: str
    method: str
    site: Literal["resid_pre", "resid_post"]
    layer: Index
    after: Index
    joint: bool
    size: Index
    note: str
    features: tuple[Feature, ...]


class Split(Strict):
    """How much of the metric crosses the site at one checkpoint, and in what; numbers in logits.

    Attributes:
        total: of all positions, what all edges carry that cross the site.
        features: of that, what all features carry, shown or not.
        error: the rest.
        differ: (feature, position) pairs that are not as active as after the corrupted prompts.
        shown: share of the sum of absolute attributions, over all pairs, that is shown.
        active: (index of the node, activation, mean activation for the corrupted prompts) of every feature shown, in root
            mean square lengths of the site's activation.
        reason: why there are no features; empty if there are.
    """

    total: Number | None
    features: Number | None
    error: Number | None
    differ: Index | None
    shown: Probability | None
    active: tuple[tuple[Index, Number, Number], ...]
    reason: str = ""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.total is None or self.features is None or self.error is None:
            if not self.reason or self.active:
                raise ValueError("a split without numbers has a reason and no features")
        elif abs(self.features + self.error - self.total) > 1e-3 * (abs(self.features) + abs(self.error)) + 1e-6:
            raise ValueError(f"features ({self.features:g}) and error ({self.error:g}) are not {self.total:g} together")
        return self
