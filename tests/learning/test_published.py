"""Dictionaries of others: files in their formats compute what the formats' formulas say, and what cannot be had is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.errors import UserError
from dynamics.learning.dictionary import Dictionary
from dynamics.learning.published import load_published
from dynamics.models.sites import FAMILIES
from tests.learning.others import NEW, OLD, D, F, K, saelens, sparsify, weights


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
