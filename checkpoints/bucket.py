"""Series in an object store: one checkpoint below each of several prefixes (``stepN/``, ``checkpoint-N/``), as ``save_pretrained`` writes them.

They are fetched as from a hub, into the cache, one while another computes, and deleted behind. An object is known by the size and the
etag with which it was listed; one that is another by the time it is fetched fails its checkpoint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator

from .errors import CheckpointError, UserError
from .files.weights import choose_files
from .hub.files import CONFIG, TOKENIZER, VOCABULARIES, HubFile, choose, is_safe, weight_files
from .hub.repository import Downloads
from .objects import Bucket, ChangedError, StoredObject, is_url, url_of
from .paths import beside, step_pattern
from .series import Checkpoint, Series, SeriesConfig, WeightFile, ordered

if TYPE_CHECKING:
    from .files.tensors import TensorInfo
    from .loading import Prepared

__all__ = ["BucketConfig", "BucketSeries"]


class BucketConfig(SeriesConfig):
    """A series in an object store."""

    reading: ClassVar[frozenset[str]] = frozenset({"kind", "url", "pattern", "tokens_per_step", "tokenizer", "keep"})

    kind: Literal["bucket"] = "bucket"
    url: str = Field(
        description="s3://BUCKET/PATH, gs://BUCKET/PATH or az://ACCOUNT/CONTAINER/PATH of the checkpoints' folders."
    )
    pattern: str = Field(
        r"(?:global_step|step|checkpoint)[-_]?(?P<step>\d+)",
        description="Pattern that the whole name of a checkpoint's folder matches, with a group named step.",
    )
    tokens_per_step: int | None = Field(None, ge=1, description="Tokens in one optimizer step, if it was constant.")
    tokenizer: Path | None = Field(None, description="Local folder of the tokenizer, if the series does not carry one.")
    keep: bool = Field(False, description="Keep what is downloaded, instead of deleting each checkpoint after its use.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not is_url(value):
            raise ValueError(f"{value!r} is no URL of an object store, as in s3://bucket/path")
        return url_of(value)

    @field_validator("pattern")
    @classmethod
    def _has_a_step(cls, value: str) -> str:
        return step_pattern(value)

    def anchored(self, base: Path) -> Self:
        """See the base class; of the tokenizer."""
        return self if self.tokenizer is None else self.model_copy(update={"tokenizer": beside(base, self.tokenizer)})


class _Objects(Downloads):
    """What is fetched of a bucket; a *commit* is the digest of names, sizes and etags of some of its objects."""

    def __init__(self, bucket: Bucket) -> None:
        scheme, _, rest = bucket.url.partition("://")
        super().__init__(f"{scheme}/{hashlib.sha256(rest.encode()).hexdigest()[:16]}")
        self._bucket = bucket
        self._folders: dict[str, str] = {}

    def commit_of(self, folder: str, files: Collection[HubFile]) -> str:
        """The commit of these objects of one folder."""
        said = "\n".join([folder, *(f"{f.name} {f.size} {f.blob}" for f in files)])
        commit = hashlib.sha1(said.encode(), usedforsecurity=False).hexdigest()
        self._folders[commit] = folder
        return commit

    def _download_one(self, commit: str, file: HubFile, path: Path) -> None:
        key = f"{self._folders[commit]}{file.name}"
        try:
            self._bucket.download(key, path, StoredObject(file.size, file.blob or ""))
        except (ChangedError, FileNotFoundError) as error:
            raise CheckpointError(
                f"{self._bucket.url}/{key} is another than was listed, or is gone",
                expected="checkpoints that stay as they are",
                remedy="run the same command again",
            ) from error


class BucketSeries(Series):
    """The checkpoints below one URL, listed when it is made; only :meth:`fetch` downloads weights.

    Args:
        config: which.
        name: for messages.

    Raises:
        UserError: when nothing there is named after a step, or the store does not answer.
    """

    local = False

    def __init__(self, config: BucketConfig, *, name: str = "") -> None:
        self._config = config
        self.name, self.origin = name or config.url.rpartition("/")[2], config.url
        bucket = Bucket(config.url)
        self._objects = _Objects(bucket)
        self._files: dict[str, list[HubFile]] = {"": []}
        for key, listed in sorted(bucket.listing().items()):
            folder, _, rest = key.partition("/")
            if is_safe(key):
                place, file = (f"{folder}/", rest) if rest else ("", key)
                self._files.setdefault(place, []).append(HubFile(file, listed.size, None, listed.etag))
        steps = {place: re.fullmatch(config.pattern, place.removesuffix("/")) for place in self._files}
        per_step = config.tokens_per_step
        found = [(int(match["step"]), place.removesuffix("/")) for place, match in steps.items() if match]
        if not found:
            raise UserError(
                f"there is no checkpoint at {config.url}",
                expected="objects below stepN/ or checkpoint-N/, each with config.json and *.safetensors or pytorch_model*.bin",
                remedy="correct `series.url`, or say by `pattern` what the folders are called",
            )
        checkpoints = [Checkpoint(step, place, None if per_step is None else per_step * step) for step, place in found]
        self.checkpoints = ordered(checkpoints, where=config.url)

    def _wanted(self, checkpoint: Checkpoint) -> tuple[HubFile, ...]:
        """What is fetched of a checkpoint."""
        return choose(self._files.get(f"{checkpoint.revision}/", ()))

    def _commit(self, checkpoint: Checkpoint) -> str:
        return self._objects.commit_of(f"{checkpoint.revision}/", self._wanted(checkpoint))

    def weight_files(self, checkpoint: Checkpoint) -> tuple[WeightFile, ...]:
        """The checkpoint's safetensors, or else its ``.bin`` files; empty if none."""
        return weight_files(self._wanted(checkpoint))

    def state(self, checkpoint: Checkpoint, files: tuple[WeightFile, ...] | None = None) -> tuple[str, ...] | None:
        """Sizes and etags of what is fetched, as it was listed."""
        return tuple(f"{f.name} {f.size} {f.blob}" for f in self._wanted(checkpoint)) or None

    def download_bytes(self, checkpoint: Checkpoint) -> int:
        """How much :meth:`fetch` would download; 0 where it is all here."""
        cache = self._objects.cache
        return cache.missing_bytes(cache.folder(self._commit(checkpoint)), self._wanted(checkpoint))

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """Download config and weights, each of the size and etag that were listed, unless they are here.

        Raises:
            CheckpointError: when there are none, some are missing, or they are others by now.
            UserError: when the store does not answer, or the cache cannot be written.
        """
        files = self._wanted(checkpoint)
        weights = choose_files(f.name for f in files)
        if not weights.files or weights.missing:
            lacking = f"lacks {weights.missing[0]}" if weights.missing else "holds no weights"
            raise CheckpointError(
                f"{checkpoint.revision} at {self.origin} {lacking}",
                expected="model*.safetensors or pytorch_model*.bin, all of its parts",
                remedy="leave this checkpoint out with `exclude`, or upload it again",
            )
        return self._objects.provide(self._commit(checkpoint), files, keep=self._config.keep, use=True)

    def read(self, fetched: Path) -> Prepared:
        """Read what :meth:`fetch` returned into memory; mapped, for nothing but this cache writes to these files.

        Raises:
            CheckpointError: when it cannot be read as weights.
        """
        from .loading import prepare

        return prepare(fetched, mapped=True)

    def header(self, checkpoint: Checkpoint) -> dict[str, TensorInfo] | None:
        """Names, shapes and dtypes of the stored tensors; None where that would cost a download.

        Raises:
            CheckpointError: when the files are here and cannot be read.
        """
        from .files.weights import header

        cache = self._objects.cache
        folder = cache.folder(self._commit(checkpoint))
        return header(folder) if cache.is_complete(folder, self._wanted(checkpoint)) else None

    def release(self, checkpoint: Checkpoint) -> None:
        """Delete what was downloaded, unless it is to be kept or another process uses it."""
        cache, commit = self._objects.cache, self._commit(checkpoint)
        with cache.changing(commit):
            cache.release(commit)
            if not cache.is_kept(cache.folder(commit)) and not cache.is_used(commit):
                cache.delete(cache.folder(commit))

    def sweep(self, keep: Collection[str] = ()) -> None:
        """Delete what killed runs left, but for these revisions, what is to be kept, and what another process uses."""
        cache = self._objects.cache
        kept = {self._commit(c) for c in self.checkpoints if c.revision in keep}
        for commit in cache.commits():
            if commit not in kept:
                with cache.changing(commit, wait=False) as mine:
                    if mine and not cache.is_kept(cache.folder(commit)) and not cache.is_used(commit):
                        cache.delete(cache.folder(commit))

    @property
    def config_folder(self) -> Path:
        """A folder with the config of the first checkpoint that has one.

        Raises:
            UserError: when there is none.
        """
        return self._small("config", {CONFIG}, {CONFIG}, "put a config.json beside the weights")

    @property
    def tokenizer_folder(self) -> Path:
        """The configured folder, else the tokenizer beside the checkpoints, else that of the first that has one.

        Raises:
            UserError: when there is none.
        """
        if self._config.tokenizer is not None:
            return self._config.tokenizer
        return self._small("tokenizer", TOKENIZER, VOCABULARIES, "name a local folder as `series.tokenizer`")

    def _small(self, kind: str, wanted: Collection[str], any_of: Collection[str], remedy: str) -> Path:
        """The files of these names at the first place that has one of those that matter."""
        for place in ("", *(f"{c.revision}/" for c in self.checkpoints)):
            files = [f for f in self._files.get(place, ()) if f.name in wanted]
            if any(f.name in any_of for f in files):
                return self._objects.provide(self._objects.commit_of(place, files), files, kind=kind)
        raise UserError(
            f"no {kind} was found at {self.origin}",
            expected=f"one of {', '.join(sorted(any_of))} there, or below a checkpoint",
            remedy=remedy,
        )
