"""Is a natural prompt explained against a twin of the same kind, and does its circuit reach the share?

    python benchmarks/natural.py            # ten prompts on SmolLM2-135M-Instruct (``make real``), its final weights alone
    python benchmarks/natural.py --model FOLDER --share 0.9

Prints a table in Markdown: per prompt the twin that ``dynamics explain`` chose without being given one, answer and foil, how
many edges were kept and what they explain of the logit difference, by ablation. Whether prompt and twin are of one kind is
for the reader to say; the last column says whether the foil is among the thousandth of the vocabulary that is most like the
answer. Ends with 1 if fewer than eight of ten reach their share with such a foil. Five minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from dynamics.explaining import explain
from dynamics.explaining.counterpart import UNLIKE
from dynamics.explaining.display import quoted
from dynamics.runs.config import Run
from tests import real

PROMPTS = {
    "a capital": "The capital of France is",
    "an opposite": "The opposite of black is",
    "agreement": "The keys to the cabinet on the wall",
    "a name": "When Mary and John went to the store, John gave a drink to",
    "a date": "The Second World War ended in 194",
    "a sum in words": "Two plus three equals",
    "a translation": 'In French, "rouge" means "',
    "a pronoun": "My sister is tired because",
    "a list": "one, two, three,",
    "code": "def multiply(a, b):\n    return a",
}
ENOUGH = 8


def main() -> None:
    """Explain each prompt and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model, instead of SmolLM2")
    parser.add_argument("--share", type=float, default=0.8)
    arguments = parser.parse_args()
    if arguments.model is None and (reason := real.why_not()):
        raise SystemExit(reason)
    model = arguments.model or real.model_folder()
    good = 0
    print(
        "| | prompt | twin | answer, foil | edges | explained | of one kind |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        series = Path(folder) / "series"
        series.mkdir()
        (series / "step1").symlink_to(model.resolve())
        # an analysis of which no prompt is like one of these: the twins are found, not taken from probes
        run = Run.model_validate(
            {"series": {"kind": "folder", "path": str(series)}, "analyses": ["induction"], "device": "cpu"}
        )
        for kind, prompt in PROMPTS.items():
            found = explain(
                "natural", prompt, run=run, share=arguments.share, traces=folder, reports=Path(folder) / "out"
            )
            good += _row(kind, found.content)
    print(f"\n{good} of {len(PROMPTS)} reach their share with a foil of the answer's kind")
    sys.exit(0 if good >= ENOUGH else 1)


def _row(kind: str, content: dict[str, Any]) -> bool:
    """Print a row; whether the share was reached with a foil of the answer's kind."""
    last, corrupted = content["checkpoints"][-1], content["corrupted"]
    alike, reached = not corrupted["note"].endswith(UNLIKE), last["state"] == "explained"
    pair = f"{quoted(content['answer']['text'])}, {quoted(content['foil']['text'])}"
    explained = "–" if last["faithfulness"] is None else f"{last['faithfulness']:.0%}"
    cells = (
        kind,
        quoted(content["prompt"]),
        quoted(corrupted["texts"][0]),
        pair,
        str(last["edges_kept"]),
        explained if reached else f"{explained} ({last['state']})",
        "yes" if alike else "no",
    )
    print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |", flush=True)
    return alike and reached


if __name__ == "__main__":
    main()
