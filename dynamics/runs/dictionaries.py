"""What a run says about its dictionaries (``dictionaries:`` in the runs file); importing this imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["CORPORA", "Corpus", "DatasetCorpus", "DictionaryConfig", "ProbesCorpus", "TextCorpus", "WorldsCorpus"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WorldsCorpus(_Settings):
    """Documents as the organism was trained on, from steps that it was not trained on."""

    kind: Literal["worlds"] = "worlds"


class TextCorpus(_Settings):
    """A text file."""

    kind: Literal["text"] = "text"
    file: Path = Field(description="UTF-8 text.")


class DatasetCorpus(_Settings):
    """A Hugging Face dataset, read as a stream (needs the extra ``datasets``)."""

    kind: Literal["dataset"] = "dataset"
    name: str = Field(description="Name on the hub, or a local folder.")
    subset: str | None = Field(None, description="Which configuration, where it has several.")
    split: str = Field("train", description="Which split.")
    column: str = Field("text", description="The column that holds the text.")


class ProbesCorpus(_Settings):
    """The prompts that the run's analyses read through the dictionary: small, and no text of any other kind."""

    kind: Literal["probes"] = "probes"


Corpus = Annotated[WorldsCorpus | TextCorpus | DatasetCorpus | ProbesCorpus, Field(discriminator="kind")]


CORPORA: dict[str, type[BaseModel]] = {
    "worlds": WorldsCorpus,
    "text": TextCorpus,
    "dataset": DatasetCorpus,
    "probes": ProbesCorpus,
}


class DictionaryConfig(_Settings):
    """One dictionary of a run: where it looks, how it is made, and on what."""

    method: Literal["crosscoder", "chain", "published"] = Field(
        "crosscoder",
        description="crosscoder: one dictionary over all checkpoints; chain: one sparse autoencoder a checkpoint, each "
        "started from its neighbour's; published: one that others trained, applied at every checkpoint.",
    )
    site: str = Field("resid_post", description="The site whose activations are described.")
    layer: int | None = Field(None, ge=0, description="Its layer; by default the one at two thirds of the depth.")
    features: int = Field(512, ge=1, description="Features to learn.")
    k: float = Field(16.0, gt=0, description="Features that fire on a token, on average.")
    steps: int = Field(600, ge=1, description="Training batches (of the first autoencoder of a chain).")
    further: int = Field(150, ge=1, description="chain: training batches of every following autoencoder.")
    batch: int = Field(512, ge=2, description="Tokens in a batch.")
    learning_rate: float = Field(3e-3, gt=0, description="Peak learning rate of Adam.")
    rows: int = Field(600, ge=1, description="Rows of the corpus that are in memory at a time.")
    refills: int = Field(
        1, ge=1, description="How often other rows take their place; each reads every checkpoint again."
    )
    context: int = Field(
        128, ge=2, description="Tokens in a row, no more than the model reads (an organism's own number for worlds)."
    )
    skip: int = Field(0, ge=0, description="First tokens of a row that are left out.")
    checkpoints: int = Field(40, ge=2, description="At most so many checkpoints, evenly on a log scale of steps.")
    corpus: Corpus | None = Field(None, description="What is read; an organism's worlds by default.")
    place: str | None = Field(None, description="published: a folder, or a repository of the hub.")
    norm_factor: float | None = Field(
        None, gt=0, description="published: what activations were multiplied by in training, where its files say so."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seeds weights and order.")

    @model_validator(mode="after")
    def _fits(self) -> DictionaryConfig:
        if self.k > self.features:
            raise ValueError(f"k is {self.k:g}, more than the {self.features} features")
        if self.method == "published" and self.place is None:
            raise ValueError("method `published` needs `place`: a folder, or owner/name on the hub")
        if self.method != "published" and self.place is not None:
            raise ValueError("`place` is for `method: published`, and nothing would be learned from it otherwise")
        if self.skip >= self.context:
            raise ValueError(f"skip is {self.skip}: nothing is left of rows of {self.context} tokens")
        return self
