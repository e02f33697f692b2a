"""When does the model know whether a sum passes 100: in a plain sum, and in a sum in words?

An analysis that makes its prompts in code: two probes, three curves, a decoding by layer and a figure. Put it beside your
``runs.yaml`` and name it there; the prompts here are in the language of the model organism.
"""

from __future__ import annotations

from dynamics import analysis as da

TITLE = "Carrying"
STEMS = {"plain": "{a}+{b}=", "words": "the sum of {a} and {b} is"}
SUMS = [(a, b) for a in range(12, 99, 11) for b in range(13, 99, 11)]


def probe(name: str) -> da.Probe:
    """Every sum in one context; the answer is its first digit of three, the foil the other one that it could be."""
    carry = [a + b >= 100 for a, b in SUMS]
    return da.Probe(
        f"carry_{name}",
        text=tuple(STEMS[name].format(a=a, b=b) for a, b in SUMS),
        answer=tuple("01"[c] for c in carry),
        foil=tuple("10"[c] for c in carry),
        labels={"carry": tuple("yes" if c else "no" for c in carry)},
    )


def plan(context: da.Context, options: da.AnalysisOptions) -> list[da.Request]:
    """Answers in both contexts; in plain sums the stream at the last token, too."""
    plain, words = probe("plain"), probe("words")
    return [da.Request(plain, (da.Answers(), da.Activations("resid_post"))), da.Request(words, (da.Answers(),))]


def summarise(trace: da.Trace, options: da.AnalysisOptions) -> da.Section:
    """Answer against foil in both contexts, and whether the carry can be read off the stream."""
    section = da.Section()
    spec = da.CurveSpec("logit difference (nat)", "sums", "mean log p(answer) - log p(foil)", headline=True)
    for name in STEMS:
        margin = trace.values(f"carry_{name}", "answer_logprob") - trace.values(f"carry_{name}", "foil_logprob")
        null = da.Null(da.sign_flip_null(margin), "no difference")
        section.findings.append(da.from_units(name, f"carry said ({name})", margin, null, spec))
    hits, shuffled = da.decoded_by_layer(trace, "carry_plain", "carry")
    spec = da.CurveSpec("accuracy", "sums", "linear classifier of the carry, best layer", limits=(0.0, 1.0))
    null = da.Null(shuffled, "shuffled labels, best layer")
    section.findings.append(da.best_layer("decodable", "carry decodable", hits, null, spec))
    section.arrays["by_layer"] = (("checkpoint", "layer"), hits.mean(-1))
    return section


def figures(summary: da.Summary) -> dict[str, da.Figure]:
    """The three curves, and the decoding by layer."""
    curves = [(finding.title, [(key, finding)]) for key, finding in summary.by_key.items()]
    by_layer = summary.data["by_layer"]
    rows = [f"layer {layer}" for layer in range(by_layer.sizes["layer"])]
    panels = [("carry decodable", by_layer.values.T)]
    steps = summary.data["step"].values.tolist()
    maps = da.heat_maps(panels, steps, rows=rows, row_title="layer", value_title="accuracy")
    return {"carry": da.curve_grid(curves), "by_layer": maps}
