"""Dictionaries of others: files in their formats compute what the formats' formulas say, and what cannot be had is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from dynamics.models.sites import FAMILIES
from tests.loopback import connected

D, F, K = 6, 20, 4
NEW = {"d_in": D, "d_sae": F, "normalize_activations": "none", "metadata": {"hook_name": "blocks.1.hook_resid_post"}}
OLD = {"d_in": D, "d_sae": F, "hook_name": "blocks.1.hook_mlp_out", "hook_layer": 1, "hook_head_index": None}


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,)}
    return {name: torch.randn(*shape, generator=g).contiguous() for name, shape in shapes.items()}


def saelens(folder: Path, config: dict[str, Any], **more: torch.Tensor | None) -> Path:
    """A folder as SAELens writes it; a tensor that is None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t for name, t in (weights() | more).items() if t is not None}
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def sparsify(folder: Path, **config: Any) -> Path:
    """A folder as sparsify writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    w = weights()
    tensors = {"encoder.weight": w["W_enc"].T.contiguous(), "encoder.bias": w["b_enc"]}
    save_file({**tensors, "W_dec": w["W_dec"], "b_dec": w["b_dec"]}, folder / "sae.safetensors")
    about = {"expansion_factor": 32, "num_latents": F, "k": K, "d_in": D, "skip_connection": False} | config
    (folder / "cfg.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def largest(pre: np.ndarray, k: int) -> np.ndarray:
    """ReLU of the k largest of each row."""
    kept = np.zeros_like(pre)
    for row, out in zip(pre, kept, strict=True):
        for j in sorted(range(len(row)), key=lambda j: -row[j])[:k]:
            out[j] = max(row[j], 0.0)
    return kept


def relu(pre: np.ndarray) -> np.ndarray:
    return np.maximum(pre, 0.0)


X = torch.randn(50, D, generator=torch.Generator().manual_seed(9)) * 2 + 1
THRESHOLD = torch.linspace(-0.5, 2.0, F)
NORMS = weights()["W_dec"].norm(dim=1).numpy()
CASES: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor], Callable[[np.ndarray], np.ndarray], Any]] = {
    "standard, new": ({**NEW, "architecture": "standard"}, {}, relu, 1.0),
    "standard, old": ({**OLD, "activation_fn_str": "relu", "normalize_activations": False}, {}, relu, 1.0),
    "decoder bias not taken off": ({**NEW, "architecture": "standard", "apply_b_dec_to_input": False}, {}, relu, 1.0),
    "jumprelu": (
        {**NEW, "architecture": "jumprelu"},
        {"threshold": THRESHOLD},
        lambda p: relu(p) * (p > THRESHOLD.numpy()),
        1.0,
    ),
    "topk, new": ({**NEW, "architecture": "topk", "k": K}, {}, lambda p: largest(p, K), 1.0),
    "topk, old": (
        {**OLD, "architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}},
        {},
        lambda p: largest(p, K),
        1.0,
    ),
    "topk by decoder norm": (
        {**NEW, "architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": True},
        {},
        lambda p: largest(p * NORMS, K),
        1 / NORMS,
    ),
    "finetuned": (
        {**OLD, "finetuning_scaling_factor": True},
        {"scaling_factor": torch.linspace(0.5, 1.5, F)},
        relu,
        np.linspace(0.5, 1.5, F),
    ),
    "not finetuned": ({**OLD}, {"scaling_factor": torch.ones(F)}, relu, 1.0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("factor", [None, 0.3])
def test_files_of_saelens_compute_what_their_configuration_says(
    name: str, factor: float | None, tmp_path: Path
) -> None:
    config, tensors, activation, decoded = CASES[name]
    if factor is not None:
        config = config | {"normalize_activations": "expected_average_only_in" if "metadata" in config else True}
    found = load_published(saelens(tmp_path, config, **tensors), norm_factor=factor)
    w, x, s = {n: t.numpy() for n, t in weights().items()}, X.numpy(), factor or 1.0
    taken_off = w["b_dec"] if config.get("apply_b_dec_to_input", True) else 0.0
    codes = activation((x * s - taken_off) @ w["W_enc"] + w["b_enc"])
    assert (codes > 0).any() and (codes == 0).any()
    given = found.dictionary.encode(X[None])
    np.testing.assert_allclose(given.numpy(), codes, atol=1e-5)
    np.testing.assert_allclose(
        found.dictionary.decode(given)[0].numpy(), ((codes * decoded) @ w["W_dec"] + w["b_dec"]) / s, atol=1e-4
    )
    assert found.format == "SAELens" and found.origin == str(tmp_path)
    assert (found.site, found.layer) == (("resid_post", 1) if "metadata" in config else ("mlp_out", 1))


def test_files_of_sparsify_compute_the_k_largest(tmp_path: Path) -> None:
    found = load_published(sparsify(tmp_path / "layers.3"))
    w = {n: t.numpy() for n, t in weights().items()}
    codes = largest((X.numpy() - w["b_dec"]) @ w["W_enc"] + w["b_enc"], K)
    given = found.dictionary.encode(X[None])
    np.testing.assert_allclose(given.numpy(), codes, atol=1e-5)
    assert int((given > 0).sum(dim=1).max()) == K
    np.testing.assert_allclose(found.dictionary.decode(given)[0].numpy(), codes @ w["W_dec"] + w["b_dec"], atol=1e-4)
    assert (found.site, found.layer, found.format, found.remarks) == ("resid_post", 3, "sparsify", ())
    with pytest.raises(UserError, match=r"shape \(20, 6\)\n  expected: \(18, 6\)"):
        load_published(sparsify(tmp_path / "many" / "layers.3", num_latents=0, expansion_factor=3))


def test_saelens_computes_the_same(tmp_path: Path) -> None:
    """The library as oracle, for files that it writes itself."""
    lens = pytest.importorskip("sae_lens", reason="SAELens is not installed", exc_type=ImportError)
    made: list[tuple[Any, Any, dict[str, Any]]] = [
        (lens.StandardSAE, lens.StandardSAEConfig, {}),
        (lens.StandardSAE, lens.StandardSAEConfig, {"apply_b_dec_to_input": False}),
        (lens.JumpReLUSAE, lens.JumpReLUSAEConfig, {}),
        (lens.TopKSAE, lens.TopKSAEConfig, {"k": K}),
        (lens.TopKSAE, lens.TopKSAEConfig, {"k": K, "rescale_acts_by_decoder_norm": True}),
    ]
    for number, (kind, config, options) in enumerate(made):
        sae = kind(config(d_in=D, d_sae=F, **options))
        sae.cfg.metadata["hook_name"] = "blocks.2.attn.hook_z"
        with torch.no_grad():
            for seed, (_, parameter) in enumerate(sorted(sae.named_parameters())):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
        sae.save_model(tmp_path / str(number))
        found = load_published(tmp_path / str(number))
        with torch.no_grad():
            codes = sae.encode(X)
            torch.testing.assert_close(found.dictionary.encode(X[None]), codes, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.dictionary.decode(codes)[0], sae.decode(codes), atol=1e-5, rtol=1e-5)
        assert (found.site, found.layer) == ("z", 2)
        if number < 2:  # the factor that the library folds into the weights
            config_file = tmp_path / str(number) / "cfg.json"
            about = json.loads(config_file.read_text()) | {"normalize_activations": "expected_average_only_in"}
            config_file.write_text(json.dumps(about))
            found = load_published(tmp_path / str(number), norm_factor=0.4)
            sae.fold_activation_norm_scaling_factor(0.4)
            with torch.no_grad():
                codes = sae.encode(X)
                torch.testing.assert_close(found.dictionary.encode(X[None]), codes, atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(found.dictionary.decode(codes)[0], sae.decode(codes), atol=1e-5, rtol=1e-5)


def test_sparsify_computes_the_same(tmp_path: Path) -> None:
    """The library as oracle, for a file that it writes itself."""
    sparse = pytest.importorskip("sparsify", reason="sparsify is not installed", exc_type=ImportError)
    coder = sparse.SparseCoder(D, sparse.SparseCoderConfig(num_latents=F, k=K))
    with torch.no_grad():
        for seed, parameter in enumerate(coder.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    coder.save_to_disk(tmp_path / "layers.0")
    found = load_published(tmp_path / "layers.0")
    with torch.no_grad():
        theirs = coder.encode(X)
        codes = torch.zeros(len(X), F).scatter_(1, theirs.top_indices, theirs.top_acts)
        torch.testing.assert_close(found.dictionary.encode(X[None]), codes, atol=1e-5, rtol=1e-5)
        made = coder.decode(theirs.top_acts, theirs.top_indices)
        torch.testing.assert_close(found.dictionary.decode(codes)[0], made, atol=1e-5, rtol=1e-5)


def test_a_limit_of_features_is_kept_in_the_file(tmp_path: Path) -> None:
    limited = load_published(sparsify(tmp_path / "layers.3")).dictionary
    limited.save(tmp_path / "limited")
    again = Dictionary.load(tmp_path / "limited")
    assert json.loads((tmp_path / "limited/dictionary.json").read_text(encoding="utf-8"))["k"] == K
    assert again.k == K and torch.equal(again.encode(X[None]), limited.encode(X[None]))
    plain = load_published(saelens(tmp_path / "plain", {**NEW, "architecture": "standard"})).dictionary
    plain.save(tmp_path / "free")
    about = json.loads((tmp_path / "free/dictionary.json").read_text(encoding="utf-8"))
    assert about["format"] == 1 and about["k"] is None
    assert Dictionary.load(tmp_path / "free").k is None
    (tmp_path / "free/dictionary.json").write_text(json.dumps(about | {"format": 3}), encoding="utf-8")
    with pytest.raises(UserError, match="has format 3"):
        Dictionary.load(tmp_path / "free")
    with pytest.raises(UserError, match="21 features are to fire"):
        load_published(sparsify(tmp_path / "layers.4", k=F + 1))


def test_hook_names_say_the_site() -> None:
    from dynamics.learning.published import _site

    expected = {
        "blocks.0.hook_resid_pre": ("resid_pre", 0),
        "blocks.11.hook_resid_mid": ("resid_mid", 11),
        "blocks.2.hook_attn_out": ("attn_out", 2),
        "blocks.2.mlp.hook_post": ("mlp_post", 2),
        "hook_embed": ("embed", None),
        "embed_tokens": ("embed", None),
        "transformer.h.7": ("resid_post", 7),
        "blocks.2.ln1.hook_normalized": None,
        "blocks.2.mlp.hook_pre": None,
        "layers.3.mlp": None,
        "somewhere": None,
    }
    assert {hook: _site(hook, None) for hook in expected} == expected


@pytest.mark.parametrize(
    ("family", "module", "expected"),
    [
        ("gpt_neox", "layers.3.mlp", ("mlp_out", 3)),
        ("gpt_neox", "layers.3.attention", ("attn_out", 3)),
        ("gpt2", "h.3.attn", ("attn_out", 3)),
        ("llama", "layers.3.self_attn", ("attn_out", 3)),
        ("llama", "layers.3.mlp.act_fn", None),  # the gate alone
        ("olmo2", "layers.3.mlp", None),  # its norm comes before the stream
        ("olmo2", "layers.3.post_feedforward_layernorm", ("mlp_out", 3)),
        ("bloom", "h.3.mlp", None),  # the stream is in it
        ("bloom", "h.3.self_attention", None),
        ("bert", "layer.3.attention", None),
    ],
)
def test_a_modules_output_is_a_site_only_where_it_is_the_same(family: str, module: str, expected: Any) -> None:
    from dynamics.learning.published import _site

    assert _site(module, FAMILIES[family]) == expected


def test_the_stream_after_a_layer_is_the_stream_before_the_next(tmp_path: Path) -> None:
    folder = saelens(
        tmp_path, {**NEW, "architecture": "standard", "metadata": {"hook_name": "blocks.2.hook_resid_pre"}}
    )

    def of(**asked: Any) -> tuple[str, int | None]:
        found = load_published(folder, **asked)
        return found.site, found.layer

    assert of() == of(layer=2) == of(site="resid_pre") == ("resid_pre", 2)
    assert of(site="resid_post") == of(site="resid_post", layer=1) == ("resid_post", 1)
    for wrong in ({"layer": 1}, {"site": "resid_post", "layer": 2}, {"site": "mlp_out"}):
        with pytest.raises(UserError, match="is of resid_pre of layer 2"):
            of(**wrong)
    (tmp_path / "cfg.json").write_text(json.dumps({**OLD, "hook_name": "blocks.0.hook_resid_pre"}), encoding="utf-8")
    with pytest.raises(UserError, match="is of resid_pre of layer 0"):  # positions may be in it: not the embedding
        of(site="embed")


def test_the_users_word_counts_where_nothing_speaks_against_it(tmp_path: Path) -> None:
    mine = sparsify(tmp_path / "mine")
    assert (found := load_published(mine, site="mlp_out", layer=1)).site == "mlp_out" and found.layer == 1
    assert load_published(mine, site="embed").layer is None
    for asked in ({}, {"site": "mlp_out"}, {"layer": 1}):
        with pytest.raises(UserError, match="nothing says which site and layer"):
            load_published(mine, **asked)
    mlp = sparsify(tmp_path / "layers.1.mlp")
    assert load_published(mlp, site="mlp_out").layer == 1
    with pytest.raises(UserError, match="expected: layer 2"):
        load_published(mlp, site="mlp_out", layer=2)
    with pytest.raises(UserError, match="not known to be resid_post"):
        load_published(mlp, site="resid_post", layer=1)
    assert load_published(mlp, site="mlp_out", layer=1, table=FAMILIES["gpt_neox"]).site == "mlp_out"
    with pytest.raises(UserError, match="is of mlp_out of layer 1"):
        load_published(mlp, site="attn_out", layer=1, table=FAMILIES["gpt_neox"])
    with pytest.raises(UserError, match="not known to be mlp_out"):
        load_published(mlp, site="mlp_out", layer=1, table=FAMILIES["olmo2"])


def test_of_several_dictionaries_the_one_of_the_site_and_layer_is_taken_or_all_are_listed(tmp_path: Path) -> None:
    for name in ("layers.2", "layers.10", "layers.10.mlp"):
        sparsify(tmp_path / name)
    assert load_published(tmp_path, site="resid_post", layer=10).origin == str(tmp_path / "layers.10")
    table = FAMILIES["gpt_neox"]
    assert load_published(tmp_path, site="mlp_out", table=table).origin == str(tmp_path / "layers.10.mlp")
    listed = "has 3 dictionaries\n  expected: layers.2, layers.10, layers.10.mlp\n"
    for asked in ({}, {"site": "resid_post", "layer": 5}):
        with pytest.raises(UserError, match=listed):
            load_published(tmp_path, **asked)
    with pytest.raises(
        UserError, match=r"3 dictionaries, 2 of them of that site and layer\n  expected: layers\.2, layers\.10\n"
    ):
        load_published(tmp_path, site="resid_post")
    for seed in ("seed0", "seed1"):
        sparsify(tmp_path / "seeds" / "layers.2" / seed)
    assert (
        found := load_published(tmp_path / "seeds" / "layers.2" / "seed1")
    ).layer == 2 and found.site == "resid_post"


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
