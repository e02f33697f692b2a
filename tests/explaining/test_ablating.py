"""What the answer becomes without parts of a model: held against known circuits, and against plain hooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import UserError
from dynamics.circuits.wired import Wired
from dynamics.explaining import check_explanation, explain
from dynamics.explaining.ablating import MOST, ablated, ablations_of, drawn_parts
from dynamics.explaining.page import explanation_page
from dynamics.explaining.printing import print_explained
from dynamics.models.architecture import architecture
from tests.circuits.handmade import Toy, induction_toy
from tests.explaining.toys import PROMPT, TWIN, toy_run, wired_toy
from tests.models.families import model_of

IDS, TWINS = torch.tensor([[3, 9, 4, 7, 5]]), torch.tensor([[3, 9, 6, 7, 5], [8, 9, 4, 2, 5]])


class Words:
    def __len__(self) -> int:
        return 1000

    def decode(self, ids: Any, **_: Any) -> str:
        return str(ids)

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return str(ids)


def explained(folder: Path, *ablate: str, **options: Any) -> Any:
    run = toy_run(folder, {0: Toy(2), 30: induction_toy()})
    given = {"run": run, "corrupted": TWIN, "answer": "d", "foil": "e", "traces": folder, "reports": folder / "out"}
    return explain("toys", PROMPT, ablate=ablate, **given, **options)


def rows_of(content: dict[str, Any], checkpoint: int = -1) -> dict[str, list[Any]]:
    return {content["ablation"]["names"][number]: row for number, *row in content["checkpoints"][checkpoint]["ablated"]}


def test_without_a_part_of_a_known_circuit_the_answer_is_that_of_the_twin_and_idle_parts_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = explained(tmp_path, "drawn", "L0H1", "L0H0", "L0H0@3+L0M", "L1H0@6+L0H1@3", "L0H1@2")
    content = json.loads((done.folder / "explanation.json").read_text())
    check_explanation(content)
    assert content["format"] == 3 and content["ablation"]["factor"] is None
    last, rows = content["checkpoints"][-1], rows_of(content)
    for name in ("L0H1", "L0H1@3", "L1H0@6", "L1H0@6+L0H1@3"):  # each carries all of it
        assert rows[name][0] == pytest.approx(last["corrupted_difference"], abs=1e-4), name
        assert rows[name][1] < 0.5 < last["answer_probability"]
    for name in ("L0H0", "L0H0@3+L0M", "L0H1@2"):
        assert rows[name][:2] == pytest.approx([last["logit_difference"], last["answer_probability"]], abs=1e-4)
        assert rows[name][3] == "d"
    assert set(rows_of(content, 0)) == {
        "L0H1",
        "L0H0",
        "L0H0@3+L0M",
        "L1H0@6+L0H1@3",
        "L0H1@2",
    }  # nothing is drawn at 0
    page = (done.folder / "index.html").read_text()
    assert "Without some parts" in page and "taken from the corrupted prompt" in page
    print_explained(done)
    said = capsys.readouterr().out
    assert "taken from the corrupted prompt" in said and "L1H0@6+L0H1@3" in said


def test_what_is_scaled_by_one_stays_and_by_zero_is_gone(tmp_path: Path) -> None:
    same = explained(tmp_path, "L0H1", "L0H1+L1H0", scale=1.0).content
    gone = explained(tmp_path, "L0H1", "L0H1+L1H0", scale=0.0).content
    assert (same["ablation"]["factor"], gone["ablation"]["factor"]) == (1.0, 0.0)
    whole = same["checkpoints"][-1]["logit_difference"]
    assert [row[0] for row in rows_of(same).values()] == pytest.approx([whole, whole], abs=1e-4)
    assert all(row[0] < 0.5 * whole for row in rows_of(gone).values())


def test_without_ablations_nothing_is_said_of_them(tmp_path: Path) -> None:
    content = explained(tmp_path).content
    assert content["format"] == 1 and "ablation" not in content
    assert "Without some parts" not in explanation_page(content) and "ablated" not in content["checkpoints"][0]


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "gemma2"])
@pytest.mark.parametrize("factor", [None, 0.0, 2.0])
def test_an_mlp_is_replaced_as_a_plain_hook_replaces_it(family: str, factor: float | None) -> None:
    model = model_of(family)
    wired = Wired(model, architecture(model.config))
    layer, last = wired.graph.layers - 1, IDS.shape[1] - 1
    name = f"L{layer}M"
    asked = ablations_of([f"{name}@2", name, f"{name}+embed@0"], wired.graph, last + 1)
    rows = ablated(wired, Words(), IDS, TWINS, asked, 3, 4, factor)
    runs = [wired.written(ids)[[s.name for s in wired.graph.sources].index(name)] for ids in (IDS, TWINS)]
    instead = runs[1].mean(0, keepdim=True) if factor is None else factor * runs[0]
    for row, places in zip(rows[:2], ([2], range(last + 1)), strict=True):
        found = plainly_replaced(wired, layer, instead - runs[0], list(places))
        np.testing.assert_allclose(row[1], float(found[3] - found[4]), atol=2e-4)
        np.testing.assert_allclose(row[2], float(found.softmax(-1)[3]), atol=1e-5)
    together = {row[0]: row[1] for row in rows}
    assert together[f"{name}+embed@0"] != pytest.approx(together[name], abs=1e-6)


def plainly_replaced(wired: Wired, layer: int, added: torch.Tensor, places: list[int]) -> torch.Tensor:
    """(vocab,) logits where the difference is added behind the last block, which is all that the last MLP is read by."""
    block = wired.blocks[layer]

    def hook(_: Any, __: Any, output: Any) -> Any:
        stream = output[0] if isinstance(output, tuple) else output
        stream = stream.clone()
        stream[:, places] += added[:, places]
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = block.register_forward_hook(hook)
    try:
        with torch.no_grad():
            return torch.as_tensor(wired.model(IDS).logits[0, -1].float())
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("L0H9", "no part of this model"),
        ("logits", "no part of this model"),
        ("", "no part of this model"),
        ("L0H0+", "no part of this model"),
        ("L0H0@-1", "no part of this model"),
        ("L0H0@٣", "no part of this model"),
        ("L0H0@7", "no position 7"),
        ("Drawn", "no part of this model"),
    ],
)
def test_parts_that_are_not_there_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        ablations_of([text], wired_toy().graph, 7)
    assert refused.value.expected and refused.value.remedy


def test_a_scale_of_nothing_is_refused(tmp_path: Path) -> None:
    for wrong, said in (({"scale": 0.0}, "no part that is scaled"), ({"ablate": "L0H1"}, "ablate")):
        with pytest.raises(UserError, match=said):
            explain("toys", PROMPT, run=toy_run(tmp_path, {0: Toy(2)}), traces=tmp_path, **wrong)  # type: ignore[arg-type]


def test_of_many_drawn_parts_the_strongest_are_ablated() -> None:
    graph = wired_toy().graph
    nodes = {(1 + i % (len(graph.sources) - 1), i): float(i) for i in range(2 * MOST)}
    parts = drawn_parts({**nodes, (0, 0): 1e9, (len(graph.sources), 6): 1e9}, graph)
    assert len(parts) == MOST and all("@" in a.name and not a.name.startswith("embed") for a in parts)
    assert {a.parts[0][1] for a in parts} == set(range(MOST, 2 * MOST))
