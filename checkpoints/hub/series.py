"""A published series: every branch or tag of a repository that is a checkpoint, or one repository per checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, UserError
from ..files.weights import choose_files
from ..layouts.adapters import adapter_files
from ..layouts.folders import others_said
from ..series import OPTIMIZER_STEPS, Checkpoint, Series, WeightFile
from .adapted import AdaptedModel, require_whole, wrong_kind
from .cache import checksums
from .client import HubClient
from .config import HubConfig
from .files import (
    CONFIG,
    TOKENIZER,
    VOCABULARIES,
    HubFile,
    adapter,
    choose,
    is_commit,
    is_repository,
    is_safe,
    weight_files,
    with_others,
)
from .listing import list_repositories, list_revisions, pinned
from .repository import Repository
from .said import CommitSource, Looking
from .transport import shown

if TYPE_CHECKING:
    from ..catalogue.entry import Entry
    from ..files.tensors import TensorInfo
    from ..loading import Prepared

__all__ = ["HubSeries"]


class HubSeries(Series):
    """Checkpoints on a hub, listed when it is made; only :meth:`fetch` downloads weights.

    Args:
        config: which series.
        name: for messages; the catalogue's name or the repository's if empty.
        pins: step to the checkpoint as it was collected before. Its commit is used again wherever its branch points by
            now.
        client: how to reach the hub; for tests.

    Attributes:
        checkpoints: by step; each with the commit that it is pinned to and the name of its branch or tag (or of its
            repository, where each checkpoint has its own).
        moved: pinned checkpoints whose branch points to another commit by now, with that commit.
        vanished: pinned checkpoints whose branch is gone; they are still in ``checkpoints``.

    Raises:
        UserError: when the revisions cannot be listed, or none is a checkpoint, or two are of one step.
    """

    pinned = True
    local = False

    def __init__(
        self,
        config: HubConfig,
        *,
        name: str = "",
        pins: Mapping[int, Checkpoint] | None = None,
        client: HubClient | None = None,
    ) -> None:
        self.entry: Entry = config.entry()
        self.name = name or self.entry.name
        self.repository, self.step_counts = self.entry.repo, self.entry.counts
        self._config = config
        self._client = client or HubClient(tries=config.retries)
        self.origin = f"{shown(self._client.endpoint)}/{self.entry.repo}"
        self._main = Repository(self.entry.repo, self._client)
        self._repositories = {
            r: self._main if r == self.entry.repo else Repository(r, self._client) for r in self.entry.repositories
        }
        if self._repositories:
            listing = list_repositories(self.entry, self._repositories, self._client)
        else:
            listing = list_revisions(self.entry, self._main)
        listing = pinned(listing, pins or {})
        self.checkpoints, self.moved, self.vanished = listing.checkpoints, listing.moved, listing.vanished
        self._unavailable = listing.unavailable or {}
        self._unread: CheckpointError | None = None
        self._tokenizer: tuple[Path, CommitSource] | None = None
        self._model_config: Path | None = None
        self._model: AdaptedModel | None = None
        if config.base is not None:
            repo, _, revision = config.base.partition("@")
            self._model = AdaptedModel(config.base, next(self._revision_source(repo, revision or "main"), None))
            on = f" on {repo}@{self._model.source.commit}"  # another commit is another model
            self.origin, self.repository = self.origin + on, self.repository + on

    def weight_files(self, checkpoint: Checkpoint) -> tuple[WeightFile, ...]:
        """The checkpoint's weight files in the repository's root: safetensors, or else ``.bin``; empty if none.

        Raises:
            CheckpointError: when they cannot be listed.
            UserError: when nothing of the repository can be had.
        """
        return weight_files(self._tree(checkpoint))

    def all_files(
        self, checkpoints: Iterable[Checkpoint] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> dict[Checkpoint, tuple[WeightFile, ...]]:
        """See the base class; what lies beside the weights is in ``left_out`` from then on."""
        found = super().all_files(checkpoints, progress)
        chosen = {c.label or c.revision[:8]: with_others(self._tree(c)) for c in found}
        self.left_out = others_said(chosen)
        return found

    def for_each(
        self,
        call: Callable[[Checkpoint], None],
        wanted: Sequence[Checkpoint],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Several requests at a time."""
        self._client.in_parallel(call, wanted, progress)

    def main_files(self) -> tuple[WeightFile, ...]:
        """The weight files of branch ``main``; empty where there are none, and with one repository per checkpoint.

        Raises:
            CheckpointError: when they cannot be listed.
        """
        commit = None if self._repositories else self._main.commit("main")
        return () if commit is None else weight_files(self._main.tree(commit))

    def contradictions(self) -> dict[Checkpoint, str]:
        """What checkpoints say of themselves that their labels, or the tokenizer of the series, do not; and adapters.

        ``revisions`` in the runs file says that names hold, and a ``tokenizer`` (also in the catalogue) that it does. Why
        some could not be looked at is in ``unlisted``.

        Raises:
            UserError: when nothing of the repository can be had.
        """
        sources = {}
        for checkpoint in self.checkpoints:
            with suppress(CheckpointError):  # one that cannot be listed says so elsewhere
                sources[checkpoint] = self._source(checkpoint)
        said = {c: [clause] if (clause := wrong_kind(s, self._model)) else [] for c, s in sources.items()}
        looking = Looking(sources, lambda call, wanted: self.for_each(call, wanted, None), said)
        if "revisions" not in self._config.model_fields_set and self.step_counts == OPTIMIZER_STEPS:
            looking.compare_steps()
        if not (self._config.tokenizer or self.entry.tokenizer):
            with suppress(UserError):  # there is none
                looking.compare_tokenizers(*self._tokenizer_and_source())
        self.unlisted = {**self.unlisted, **looking.unlisted}
        return {c: "; ".join(said[c]) for c in self.checkpoints if said.get(c)}

    def download_bytes(self, checkpoint: Checkpoint) -> int:
        """How much :meth:`fetch` would download; 0 where it is all here. Raises what :meth:`weight_files` does."""
        files, cache = choose(self._tree(checkpoint)), self._repository(checkpoint).cache
        return cache.missing_bytes(cache.folder(checkpoint.revision), files)

    def shared_bytes(self) -> dict[str, int]:
        """See the base class: the model that checkpoints are adapters of."""
        return {} if self._model is None else {self._model.named: self._model.missing_bytes()}

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """Download config and weights, verified against the hub's checksums, unless they are here; nothing else.

        The folder stays until :meth:`release`, whatever other processes do; one that is downloading the same checkpoint
        is waited for.

        Raises:
            CheckpointError: when this checkpoint has no weights, lacks some, or they do not arrive.
            UserError: when nothing of the repository can be had, or the cache cannot be written.
        """
        source = self._source(checkpoint)
        files = choose(source.files)
        weights = choose_files(f.name for f in files)
        called = f"{source.label} of {self.name}"
        if wrong := wrong_kind(source, self._model):
            raise CheckpointError(
                f"{called} cannot be used: {wrong}",
                expected="checkpoints of one kind, and the model where they are adapters",
                remedy="name the model's repository as `series.base` in the runs file, or leave these out with `exclude`",
            )
        if not weights.files and not adapter(files):
            raise CheckpointError(
                f"{called} holds no weights",
                expected="model*.safetensors or pytorch_model*.bin in its root",
                remedy="leave this checkpoint out with `exclude`, or tell the owner of the repository",
            )
        if missing := len(weights.missing):
            raise CheckpointError(
                f"{called} lacks {missing} of its {len(weights.files) + missing} weight files",
                expected=f"among others {weights.missing[0]}, as its index says",
                remedy="leave this checkpoint out with `exclude`, or tell the owner of the repository",
            )
        return self._repository(checkpoint).provide(checkpoint.revision, files, keep=self._config.keep, use=True)

    def read(self, fetched: Path) -> Prepared:
        """Read what :meth:`fetch` returned into memory; mapped, for nothing but this cache writes to these files.

        Raises:
            CheckpointError: when it cannot be read as weights.
        """
        from ..files.weights import weight_files as local_files
        from ..loading import prepare

        if self._model is not None:
            return self._model.base.merged(fetched)
        digests = checksums(fetched)
        # verified when they came: not read twice
        known = [digests.get(file.name) or "" for file in local_files(fetched)]
        if not known or not all(known):
            return prepare(fetched, mapped=True)
        together = hashlib.sha256("\n".join(known).encode()).hexdigest()
        return prepare(fetched, digest=known[0] if len(known) == 1 else together, mapped=True)

    def state(self, checkpoint: Checkpoint, files: tuple[WeightFile, ...] | None = None) -> tuple[str, ...] | None:
        """The checksums of its weight files; None where there are none, or one has none.

        Raises:
            CheckpointError: when they cannot be listed.
        """
        files = self.weight_files(checkpoint) if files is None else files
        known = [f"{f.name} {f.sha256}" for f in files if f.sha256 is not None]
        base = () if self._model is None else (self._model.source.commit,)
        return (*base, *known) if files and len(known) == len(files) else None

    def header(self, checkpoint: Checkpoint) -> dict[str, TensorInfo] | None:
        """Names, shapes and dtypes of the stored tensors; None where that would cost a download.

        Raises:
            CheckpointError: when the files cannot be listed, or are here and cannot be read.
        """
        from ..files.weights import header

        if not is_commit(checkpoint.revision):
            return None
        cache = self._repository(checkpoint).cache
        folder = cache.folder(checkpoint.revision)
        if not cache.is_finished(folder):  # before the files are listed, which may take a request
            return None
        if not cache.is_complete(folder, choose(self._tree(checkpoint))):
            return None
        return header(folder, files=adapter_files(folder)[:1])

    def release(self, checkpoint: Checkpoint) -> None:
        """Delete what was downloaded, unless it is to be kept or another process uses it.

        Raises:
            UserError: when it cannot be deleted.
        """
        if not is_commit(checkpoint.revision):
            return
        cache = self._repository(checkpoint).cache
        folder = cache.folder(checkpoint.revision)
        with cache.changing(checkpoint.revision):
            cache.release(checkpoint.revision)
            stays = cache.is_kept(folder) or (self._config.keep and cache.is_finished(folder))
            if not stays and not cache.is_used(checkpoint.revision):
                cache.delete(folder)

    def sweep(self, keep: Collection[str] = ()) -> None:
        """Delete what killed runs left: every commit's weights, whole or not, that no process uses and that is not to be kept.

        Raises:
            UserError: when something cannot be deleted.
        """
        for repository in (self._main, *self._repositories.values()):
            cache = repository.cache
            for commit in cache.commits():
                if commit in keep:
                    continue
                folder = cache.folder(commit)
                with cache.changing(commit, wait=False) as mine:
                    stays = cache.is_kept(folder) or (self._config.keep and cache.is_finished(folder))
                    if mine and not stays and not cache.is_used(commit):
                        cache.delete(folder)

    @property
    def config_folder(self) -> Path:
        """A folder with the config of the first checkpoint that has one, else of ``main``; of the base of adapters.

        Raises:
            UserError: when there is none, or the first checkpoint is an adapter of a model that is not named.
        """
        if self._model_config is None:
            if self._model is None:
                require_whole(self.entry.repo, next(self._checkpoint_sources(), None))
            own = () if self._model is None else (self._model.source,)
            sources = own or chain(self._checkpoint_sources(), self._main_source())
            self._model_config, _ = self._small("config", {CONFIG}, {CONFIG}, sources)
        return self._model_config

    @property
    def tokenizer_folder(self) -> Path:
        """A folder with the tokenizer that was named, else that of ``main``, else of the first checkpoint with one.

        Raises:
            UserError: when there is none.
        """
        if self._config.tokenizer is not None and Path(self._config.tokenizer).expanduser().is_dir():
            return Path(self._config.tokenizer).expanduser()
        return self._tokenizer_and_source()[0]

    def _tokenizer_and_source(self) -> tuple[Path, CommitSource]:
        named = self._config.tokenizer or self.entry.tokenizer
        if named and not is_repository(named):
            raise UserError(
                f"the tokenizer {named!r} is neither a folder nor the name of a repository",
                remedy="correct `series.tokenizer`",
                expected="a folder that exists, or owner/name",
            )
        if self._tokenizer is None:
            if named:
                revision = "main" if self._config.tokenizer else self.entry.tokenizer_revision
                sources = self._revision_source(named, revision)
            else:
                of_base = () if self._model is None else (self._model.source,)
                sources = chain(self._main_source(), self._checkpoint_sources(), of_base)
            self._tokenizer = self._small("tokenizer", TOKENIZER, VOCABULARIES, sources)
        return self._tokenizer

    def _repository(self, checkpoint: Checkpoint) -> Repository:
        return self._repositories.get(checkpoint.label, self._main)

    def _tree(self, checkpoint: Checkpoint) -> tuple[HubFile, ...]:
        unavailable = self._unavailable.get(checkpoint.label, "")
        if unavailable and not is_commit(checkpoint.revision):
            raise CheckpointError(
                unavailable,
                expected="a repository with weights on main",
                remedy="try again later, or leave this checkpoint out with `exclude`",
            )
        if checkpoint.label and not is_safe(checkpoint.label):
            raise CheckpointError(
                f"the revision {checkpoint.label!r} of {self.name} is refused",
                expected="a name that is no path upwards",
                remedy="leave this checkpoint out with `exclude`",
            )
        try:
            return self._repository(checkpoint).tree(checkpoint.revision)
        except UserError:
            if not unavailable:
                raise
            raise CheckpointError(  # a pinned commit, of which nothing was saved
                unavailable,
                expected="a repository that can be read, or a download of an earlier run",
                remedy="try again later, or leave this checkpoint out with `exclude`",
            ) from None

    def _source(self, checkpoint: Checkpoint) -> CommitSource:
        label = checkpoint.label or checkpoint.revision[:8]
        return CommitSource(self._repository(checkpoint), checkpoint.revision, self._tree(checkpoint), label)

    def _checkpoint_sources(self) -> Iterator[CommitSource]:
        for checkpoint in self.checkpoints:
            try:
                yield self._source(checkpoint)
            except CheckpointError:  # the next one will do
                continue

    def _main_source(self) -> Iterator[CommitSource]:
        try:
            yield from self._revision_source(self.entry.repo, "main")
        except CheckpointError as error:  # the checkpoints may have what is wanted
            self._unread = error

    def _revision_source(self, repo: str, revision: str) -> Iterator[CommitSource]:
        repository = self._main if repo == self.entry.repo else Repository(repo, self._client)
        commit = repository.commit(revision)
        if commit is not None:
            yield CommitSource(repository, commit, repository.tree(commit), revision)

    def _small(
        self, kind: str, wanted: Collection[str], any_of: Collection[str], sources: Iterable[CommitSource]
    ) -> tuple[Path, CommitSource]:
        """The first source's files of these names, where it has one of those that matter."""
        for source in sources:
            if any(file.name in any_of for file in source.files):
                files = [f for f in source.files if f.name in wanted]
                return source.repository.provide(source.commit, files, kind=kind), source
        if self._unread is not None:
            raise self._unread
        raise UserError(
            f"no {kind} was found for {self.name} ({self.origin})",
            expected=f"one of {', '.join(sorted(any_of))} in the root of a revision",
            remedy="name a repository or a folder as `series.tokenizer`"
            if kind == "tokenizer"
            else "put a config.json beside the weights",
        )
