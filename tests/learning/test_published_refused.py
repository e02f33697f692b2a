"""Dictionaries of others: what cannot be had is refused, and what a reader should know is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from checkpoints.configs import read_config
from checkpoints.errors import UserError
from checkpoints.hub.client import HubClient
from checkpoints.local import FolderConfig, FolderSeries
from dynamics.learning.dictionary import Dictionary
from dynamics.learning.published import Published, load_published
from dynamics.models.architecture import architecture
from tests.learning.others import NEW, OLD, D, F, saelens, sparsify, weights
from tests.loopback import connected


def refused(folder: Path, match: str, **asked: Any) -> None:
    with pytest.raises(UserError, match=match):
        load_published(folder, **asked)


def test_what_cannot_be_expressed_is_refused(tmp_path: Path) -> None:
    new = {**NEW, "architecture": "standard"}
    changed = {**NEW["metadata"], "model_from_pretrained_kwargs": {"center_writing_weights": True}}  # type: ignore[dict-item]
    wrong = {
        "architecture 'gated'": {**new, "architecture": "gated"},
        "architecture 'skip_transcoder'": {**new, "architecture": "skip_transcoder"},
        "activation 'tanh-relu'": {**OLD, "activation_fn_str": "tanh-relu"},
        "by 'layer_norm'": {**new, "normalize_activations": "layer_norm"},
        "factor that activations were multiplied": {**new, "normalize_activations": "expected_average_only_in"},
        "has hook_head_index: 3": {**OLD, "hook_head_index": 3},
        "has hook_name_out: 'blocks.1.hook_mlp_out'": {**new, "hook_name_out": "blocks.1.hook_mlp_out"},
        "other weights than the published ones": {**new, "metadata": changed},
        "has k: None": {**new, "architecture": "topk"},
        "has d_sae: None": {"d_in": D},
        "'blocks.1.mlp.hook_pre', which is not known": {**OLD, "hook_name": "blocks.1.mlp.hook_pre"},
    }
    for match, config in wrong.items():
        refused(saelens(tmp_path / "a", config), match)
    refused(saelens(tmp_path / "a", new), "norm_factor is 0.5", norm_factor=0.5)
    refused(saelens(tmp_path / "a", OLD, scaling_factor=torch.full((F,), 2.0)), "scaling_factor that its cfg.json")
    for key in ("transcode", "skip_connection", "signed"):
        refused(sparsify(tmp_path / "layers.3", **{key: True}), f"{key}: true")
    refused(sparsify(tmp_path / "layers.3", activation="groupmax"), "activation 'groupmax'")
    refused(sparsify(tmp_path / "layers.3"), "this format does not normalise", norm_factor=2.0)
    save_file({"W_skip": torch.ones(D, D)}, sparsify(tmp_path / "layers.3") / "sae.safetensors")
    refused(tmp_path / "layers.3", "W_skip")


def test_what_is_broken_is_refused_by_name(tmp_path: Path) -> None:
    new = {**NEW, "architecture": "standard"}
    refused(saelens(tmp_path / "a", {**NEW, "architecture": "jumprelu"}), "has no tensor 'threshold'")
    refused(saelens(tmp_path / "a", new, b_dec=None), "has no tensor 'b_dec'")
    refused(saelens(tmp_path / "a", new, W_enc=torch.ones(F, D)), r"'W_enc' in .* has shape \(20, 6\)")
    refused(saelens(tmp_path / "a", new, b_enc=torch.full((F,), float("nan"))), "not finite")
    file = saelens(tmp_path / "a", new) / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    refused(tmp_path / "a", "cannot be read as weights")
    file.rename(file.with_name("sae_weights.pt"))
    refused(tmp_path / "a", "no weights that can be read")
    (tmp_path / "a/cfg.json").write_text("{", encoding="utf-8")
    save_file(weights(), file)
    refused(tmp_path / "a", "it is not JSON")
    (tmp_path / "a/cfg.json").write_text("[]", encoding="utf-8")
    refused(tmp_path / "a", "holds a list")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "there is no cfg.json in")
    refused(tmp_path / "absent", "there is no folder")
    with pytest.raises(UserError, match="there is no folder 'absent'"):
        load_published("absent")


def test_what_a_reader_should_know_is_said(tmp_path: Path) -> None:
    known = {"hook_name": "blocks.0.hook_resid_post", "model_from_pretrained_kwargs": {"center_writing_weights": False}}
    assert load_published(saelens(tmp_path, {**NEW, "architecture": "standard", "metadata": known})).remarks == ()
    old = load_published(saelens(tmp_path, {**OLD, "prepend_bos": True})).remarks
    assert ["not said" in old[0], "begin with the token" in old[1]] == [True, True]


def test_it_is_checked_against_the_model(tiny_series: Path) -> None:
    series = FolderSeries(FolderConfig(path=tiny_series))
    model = architecture(read_config(series.config_folder))
    wide = torch.zeros(2, 1, 32)
    made = Dictionary(wide, wide, torch.zeros(2), torch.zeros(1, 32), torch.zeros(1, 32), torch.ones(1), torch.zeros(2), torch.zeros(2))  # fmt: skip
    assert Published(made, "resid_post", 1, "here", "sparsify").check(model).width == 32
    assert Published(made, "embed", None, "here", "sparsify").check(model).width == 32
    for site, layer, match in (
        ("mlp_post", 1, "for activations of width 32\n  expected: 128, which is that of mlp_post"),
        ("resid_post", 2, "there is no layer 2"),
        ("pattern", 0, "site 'pattern'"),
    ):
        with pytest.raises(UserError, match=match):
            Published(made, site, layer, "here", "sparsify").check(model)


def test_a_repository_is_read_as_a_folder_is_and_kept(tmp_path: Path) -> None:
    for name in ("layers.2", "layers.10"):
        sparsify(tmp_path / "repo" / name)
    (tmp_path / "repo" / "layers.10" / "optimizer.pt").write_bytes(b"not wanted")
    with connected(tmp_path) as hub:
        client = HubClient(sleep=lambda _: None)
        repo = hub.repo("owner/saes")
        commit = repo.branch("main", tmp_path / "repo")
        repo.branch("second", {"cfg.json": "{}"})
        found = load_published("owner/saes", site="resid_post", layer=10, client=client)
        assert (found.origin, found.layer) == (f"owner/saes@{commit}/layers.10", 10)
        assert torch.equal(found.dictionary.encoder, load_published(tmp_path / "repo" / "layers.10").dictionary.encoder)
        kept = {p.relative_to(tmp_path / "cache/hub/owner--saes").as_posix() for p in (tmp_path / "cache").rglob("*.*")}
        folder = f"dictionaries/{commit}/layers.10"
        assert {p for p in kept if "layers." in p} == {folder, f"{folder}/cfg.json", f"{folder}/sae.safetensors"}
        assert load_published("owner/saes/layers.2", client=client).layer == 2
        assert load_published(f"owner/saes@{commit}/layers.10", client=client).layer == 10
        before = len(hub.asked("sae.safetensors"))
        assert load_published("owner/saes", site="resid_post", layer=10, client=client).layer == 10
        assert len(hub.asked("sae.safetensors")) == before  # it is here already
        for place, match in {
            "owner/saes": "has 2 dictionaries",
            "owner/saes/layers.3": "there is no cfg.json",
            "owner/saes@third": "has no revision 'third'",
            "owner/saes@second": "no weights that can be read",
            "owner/none": "there is no repository 'owner/none'",
        }.items():
            with pytest.raises(UserError, match=match):
                load_published(place, client=client)
