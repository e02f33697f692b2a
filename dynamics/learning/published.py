"""Dictionaries that others trained: where they are, and which site of which layer they are of.

They come from a folder or from a hub, in the formats of :mod:`dynamics.learning.formats`. *SAELens* writes the name that
TransformerLens has for a point (``blocks.3.hook_resid_post``); *sparsify* calls the folder as the module whose output it
was trained on (``layers.3``, ``layers.3.mlp``). Names are believed only where it is certain which site they mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from checkpoints.errors import UserError, nearest
from checkpoints.hub.client import HubClient
from checkpoints.hub.files import is_repository
from checkpoints.hub.repository import Repository

from ..models.architecture import Architecture
from ..models.sites import SiteTable
from .dictionary import Dictionary
from .formats import CONFIG, WEIGHTS, read_contents
from .site import SiteAt

__all__ = ["Published", "load_published"]

SiteLayer = tuple[str, int | None]
"""A site and its layer, None outside the blocks."""


@dataclass(frozen=True)
class Published:
    """A dictionary and where it belongs.

    Attributes:
        dictionary: over one checkpoint, in the activations' own units.
        site, layer: what it was trained on; the layer is None outside the blocks.
        origin: the folder, or ``owner/name@commit/folder``.
        format: ``SAELens`` or ``sparsify``.
        remarks: what has to be known to read its results.
    """

    dictionary: Dictionary
    site: str
    layer: int | None
    origin: str
    format: str
    remarks: tuple[str, ...] = ()

    def check(self, architecture: Architecture) -> SiteAt:
        """Where it looks in a model.

        Raises:
            UserError: when the model has no such site or layer, or another width there.
        """
        site = SiteAt(architecture, self.site, self.layer or 0)
        width = int(self.dictionary.decoder.shape[2])
        if width != site.width:
            raise UserError(
                f"the dictionary {self.origin} is for activations of width {width}",
                expected=f"{site.width}, which is that of {self.site} of this model",
                remedy="choose a dictionary that was trained on this model at this site",
            )
        return site


def load_published(
    source: str | Path,
    *,
    site: str | None = None,
    layer: int | None = None,
    norm_factor: float | None = None,
    table: SiteTable | None = None,
    device: str = "cpu",
    client: HubClient | None = None,
) -> Published:
    """Read a published dictionary.

    Args:
        source: a folder, or ``owner/name``, ``owner/name/folder`` or ``owner/name@revision/folder`` on the hub.
        site: where it is from; checked where the files say so themselves, needed where they do not. ``resid_pre`` of a
            layer and ``resid_post`` of the one before are the same.
        layer: 0 is the first. Of several dictionaries in one folder the one of this site and layer is taken.
        norm_factor: what activations were multiplied by in training, for files that need it
            (``normalize_activations: expected_average_only_in``).
        table: of the model, which says what site a module is.
        device: torch device.
        client: how to reach the hub; for tests.

    Raises:
        UserError: when there is none, or several, or one that is not of this site and layer; when its format, its
            architecture, its normalisation or a tensor is not as expected.
        CheckpointError: when it cannot be downloaded.
    """
    if isinstance(source, Path) or Path(source).is_dir():
        folder = _from_disk(Path(source), site, layer, table)
        origin = str(folder)
    else:
        folder, origin = _from_hub(source, site, layer, table, client or HubClient())
    contents = read_contents(folder, norm_factor=norm_factor, device=device)
    hook = contents.hook or _module_in(PurePosixPath(origin).parts, table)
    named = _site(hook, table)
    agreed = _agreed(named, site, layer) if named else _trusted(hook, site, layer, table, origin)
    if agreed is None:
        raise UserError(
            f"the dictionary {origin} is of {_shown(named)} ({hook})",
            expected=_shown((site or "any site", layer)),
            remedy="name the site and layer that it is of, or another dictionary",
        )
    return Published(contents.dictionary, *agreed, origin, contents.format, contents.remarks)


def _from_disk(source: Path, site: str | None, layer: int | None, table: SiteTable | None) -> Path:
    if not source.is_dir():
        raise UserError(
            f"there is no folder {source}",
            expected="a folder, or owner/name of a repository on the hub",
            remedy="correct `place` of the dictionary",
        )
    if (source / CONFIG).is_file():
        return source
    found = [file.parent.relative_to(source).as_posix() for file in source.rglob(CONFIG)]
    return source / _choose(found, str(source), site, layer, table)


def _from_hub(
    source: str, site: str | None, layer: int | None, table: SiteTable | None, client: HubClient
) -> tuple[Path, str]:
    """The folder in the cache, and what it is called."""
    parts = source.split("/")
    name, _, revision = "/".join(parts[:2]).partition("@")
    within = "/".join(parts[2:]).strip("/")
    if len(parts) < 2 or not is_repository(name):
        raise UserError(
            f"there is no folder {source!r}",
            expected="a folder, or owner/name of a repository on the hub",
            remedy="correct `place` of the dictionary",
        )
    repository = Repository(name, client)
    commit = repository.commit(revision or "main")
    if commit is None:
        raise UserError(
            f"{name} has no revision {revision or 'main'!r}",
            remedy=nearest(revision or "main", repository.refs()),
            expected="a branch, a tag or a commit",
        )
    files = {PurePosixPath(file.name): file for file in repository.tree(commit)}
    folders = [p.parent for p in files if p.name == CONFIG]
    base = PurePosixPath(within or ".")
    below = [f.relative_to(base).as_posix() for f in folders if f.is_relative_to(base)]
    where = f"{name}@{commit}" + (f"/{within}" if within else "")
    folder = base if base in folders else base / _choose(below, where, site, layer, table)
    wanted = [files[folder / each] for each in (CONFIG, *WEIGHTS) if folder / each in files]
    local = repository.provide(commit, wanted, kind="dictionaries") / folder
    return local, f"{name}@{commit}" + ("" if folder == PurePosixPath(".") else f"/{folder}")


def _choose(found: Sequence[str], where: str, site: str | None, layer: int | None, table: SiteTable | None) -> str:
    """The one folder that is meant, by its name."""
    found = sorted(found, key=lambda name: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", name)])
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"there is no {CONFIG} in {where}, nor in a folder in it",
            expected="a dictionary of SAELens or sparsify",
            remedy="name the folder or repository that holds one as `place`",
        )
    fitting = []
    if site is not None or layer is not None:
        named = {name: _site(_module_in(PurePosixPath(name).parts, table), table) for name in found}
        fitting = [name for name, one in named.items() if one and _agreed(one, site, layer)]
    if len(fitting) == 1:
        return fitting[0]
    many = fitting or found
    raise UserError(
        f"{where} has {len(found)} dictionaries"
        + (f", {len(fitting)} of them of that site and layer" if fitting else ""),
        expected=", ".join(many[:30]) + (", ..." if len(many) > 30 else ""),
        remedy=f"name the folder of one: {where}/{many[0]}",
    )


_HOOKS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_z": "z",
    "mlp.hook_post": "mlp_post",
}
_EMBEDDINGS = ("embed_in", "embed_tokens", "wte", "word_embeddings")
_MODULE = re.compile(r"(?:[A-Za-z_]\w*\.)*(?:layers|layer|h|blocks)\.(\d+)((?:\.\w+)*)")


def _site(hook: str, table: SiteTable | None) -> SiteLayer | None:
    """The site and layer of TransformerLens' name of a point, or of a module's output; None where it is not certain.

    >>> _site("blocks.3.hook_resid_post", None), _site("layers.10", None), _site("layers.10.mlp", None)
    (('resid_post', 3), ('resid_post', 10), None)
    """
    if hook == "hook_embed":
        return "embed", None
    match = re.fullmatch(r"blocks\.(\d+)\.([\w.]+)", hook)
    if match and match[2] in _HOOKS:
        return _HOOKS[match[2]], int(match[1])
    if "hook_" in hook:
        return None
    match = _MODULE.fullmatch(hook)
    if match and not match[2]:
        return "resid_post", int(match[1])
    if match and table is not None:
        return _part(match[2].removeprefix("."), int(match[1]), table)
    return ("embed", None) if hook.rpartition(".")[2] in _EMBEDDINGS else None


def _part(module: str, layer: int, table: SiteTable) -> SiteLayer | None:
    """The site that is the output of a module in a block."""
    for site, where in table.in_block.items():
        if (where.module, where.side, where.index) == (module, "output", 0):
            return site, layer
    # in transformers the first output of these is that of the matrix in them; `self_attention` (BLOOM) adds the stream
    out = table.in_block.get("attn_out")
    if module in ("attention", "attn", "self_attn") and out and re.fullmatch(rf"{module}\.\w+", out.module):
        return "attn_out", layer
    return None


def _module_in(parts: Sequence[str], table: SiteTable | None) -> str:
    """The part of a folder's name that names a point in a model; ``NAME/seed0`` is one of several of NAME."""
    for part in (*parts[:-3:-1],):
        if _site(part, table) or _MODULE.fullmatch(part):
            return part
    return parts[-1] if parts else ""


def _agreed(named: SiteLayer, site: str | None, layer: int | None) -> SiteLayer | None:
    """The site and layer in the user's words, or None where they are others."""
    forms = [named]
    if site == "resid_post" and named[0] == "resid_pre" and named[1]:
        forms.append(("resid_post", named[1] - 1))
    if site == "resid_pre" and named[0] == "resid_post" and named[1] is not None:
        forms.append(("resid_pre", named[1] + 1))
    return next((f for f in forms if site in (None, f[0]) and (None in (layer, f[1]) or layer == f[1])), None)


def _trusted(hook: str, site: str | None, layer: int | None, table: SiteTable | None, origin: str) -> SiteLayer:
    """The user's word for a point that is not known, as far as its name does not speak against it."""
    match = _MODULE.fullmatch(hook)
    # a module in a block is not the stream, and the model's table knows all other sites
    if "hook_" in hook or (match and (table is not None or (site or "").startswith("resid"))):
        raise UserError(
            f"the dictionary {origin} is of {hook!r}, which is not known to be {site or 'a site'}",
            expected="a dictionary of one of the sites" + (f": {', '.join(table.sites)}" if table else ""),
            remedy="choose a dictionary of such a site, or correct `site` if it is another name of one",
        )
    if match:
        if layer not in (None, int(match[1])):
            raise UserError(
                f"the dictionary {origin} is of {hook!r}",
                expected=f"layer {layer}",
                remedy=f"say `layer: {match[1]}`, or name the dictionary of layer {layer}",
            )
        layer = int(match[1])
    if site is None or (layer is None and site not in ("embed", "ln_final")):
        raise UserError(
            f"nothing says which site and layer the dictionary {origin} is of",
            expected="a folder called as sparsify calls it (layers.3), or hook_name in cfg.json",
            remedy="name site and layer",
        )
    return site, layer


def _shown(where: SiteLayer | None) -> str:
    if where is None:
        return "no known site"
    return where[0] if where[1] is None else f"{where[0]} of layer {where[1]}"
