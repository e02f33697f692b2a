"""Series kept in a local folder: one sub-folder per checkpoint, as ``save_pretrained`` and the HF Trainer write them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .errors import UserError
from .series import Checkpoint, ordered
from .weights import has_weights

__all__ = ["FolderConfig", "FolderSeries"]

_NAME = re.compile(r"^(?:global_step|step|checkpoint|iter)[-_]?0*(\d+)$")


class FolderConfig(BaseModel):
    """A series in a local folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["folder"] = "folder"
    path: Path = Field(description="Folder with one sub-folder per checkpoint: stepN, step-N, checkpoint-N, ...")
    tokens_per_step: int | None = Field(None, ge=1, description="Tokens in one optimizer step, if it was constant.")
    tokenizer: Path | None = Field(None, description="Folder of the tokenizer, if the checkpoints do not carry one.")


class FolderSeries:
    """Checkpoints in the sub-folders of one folder.

    Tokens come from ``trainer_state.json`` (``num_input_tokens_seen``), else from ``tokens_per_step``; otherwise they
    are unknown. ``training_args.bin`` and ``optimizer.pt`` are pickles and are never opened.

    Raises:
        UserError: when the folder does not exist, or holds no checkpoint.
    """

    def __init__(self, config: FolderConfig, *, name: str = "") -> None:
        self.name = name or config.path.name
        self._root = config.path
        self._config = config
        if not config.path.is_dir():
            raise UserError(
                f"there is no folder {config.path}",
                expected="a folder with one sub-folder per checkpoint (stepN, checkpoint-N, ...)",
                remedy="correct `series.path`; relative paths are relative to the runs file",
            )
        self.checkpoints = ordered(self._find(), where=str(config.path))

    @property
    def origin(self) -> str:
        """The folder."""
        return str(self._root)

    @property
    def tokenizer_folder(self) -> Path:
        """The configured folder, else the series' folder, else the first checkpoint that carries a tokenizer."""
        if self._config.tokenizer is not None:
            return self._config.tokenizer
        for folder in (self._root, *(self.fetch(c) for c in self.checkpoints)):
            if (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
                return folder
        raise UserError(
            f"no tokenizer was found in {self._root} or its checkpoints",
            expected="tokenizer.json beside the weights",
            remedy="name its folder as `series.tokenizer` in the runs file",
        )

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """The checkpoint's own folder; nothing is copied."""
        return self._root / checkpoint.revision

    def _find(self) -> list[Checkpoint]:
        found: list[Checkpoint] = []
        names = []
        for folder in sorted(p for p in self._root.iterdir() if p.is_dir()):
            names.append(folder.name)
            match = _NAME.match(folder.name)
            if match and any(folder.iterdir()):  # one without weights is a fault to report, not a gap to pass over
                step = int(match[1])
                found.append(Checkpoint(step=step, revision=folder.name, tokens=self._tokens(folder, step)))
        if not any(has_weights(self.fetch(checkpoint)) for checkpoint in found):
            seen = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "no sub-folder at all"
            raise UserError(
                f"{self._root} is not a series of checkpoints: it holds {seen}",
                expected="sub-folders stepN or checkpoint-N, each with config.json and *.safetensors or pytorch_model*.bin",
                remedy="point `series.path` at the folder above the checkpoints",
            )
        return found

    def _tokens(self, folder: Path, step: int) -> int | None:
        state = folder / "trainer_state.json"
        if state.is_file():
            try:
                content = json.loads(state.read_text(encoding="utf-8"))
            except ValueError:  # truncated: what it would have said is unknown
                content = None
            seen = content.get("num_input_tokens_seen") if isinstance(content, dict) else None
            if isinstance(seen, int) and seen > 0:
                return seen
        per_step = self._config.tokens_per_step
        return None if per_step is None else per_step * step
