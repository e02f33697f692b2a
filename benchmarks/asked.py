"""What every built-in analysis asks of the tokenizers of twelve models.

    python benchmarks/asked.py                                  # real where a package has it, else rebuilt in its scheme
    python benchmarks/asked.py --vocabularies FOLDER            # with real vocabularies: ggml-vocab-*.gguf
    python benchmarks/asked.py --folder ./my-model --folder ... # and your own

Prints a table in Markdown: how a sum, a year and a hinted sum are asked, how many prompts the other analyses have, and what is refused.
A refusal prints its reason below the table, and the command ends with 1 if one speaks of digits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from analyses.shared_concepts.prompts import LANGUAGES
from checkpoints.errors import UserError
from checkpoints.tokenizing import load_tokenizer
from dynamics.analysis.base import Context
from dynamics.probes import TokenizedProbe, tokenize
from dynamics.runs.plan import built_in, find_analysis
from tests import real
from tests.schemes import SCHEMES, build, read_vocabulary

NUMBERS = ("addition", "greater_than", "faithfulness")
SHOWN = 24
"""Characters of a question, from its end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--vocabularies", type=Path, help="folder with ggml-vocab-*.gguf, as llama-cpp-python ships them in its source"
    )
    parser.add_argument("--folder", type=Path, action="append", default=[], help="folder of a tokenizer")
    given = parser.parse_args()
    others = [name for name in built_in() if name not in (*NUMBERS, "feature_census")]
    head = ["tokenizer", "from", *NUMBERS, *others]
    print("| " + " | ".join(f"`{h}`" if h in (*NUMBERS, *others) else h for h in head) + " |")
    print("|" + " --- |" * len(head))
    reasons: list[str] = []
    for name, source, tokenizer in tokenizers(given.vocabularies, given.folder):
        cells = [cell(name, analysis, tokenizer, reasons) for analysis in (*NUMBERS, *others)]
        print("| " + " | ".join([name, source, *cells]) + " |", flush=True)
    print()
    for reason in reasons:
        print(f"- {reason}")
    sys.exit(any(reason.split("`")[1] in NUMBERS for reason in reasons))


def tokenizers(vocabularies: Path | None, folders: list[Path]) -> Iterator[tuple[str, str, Any]]:
    """Name, where it is from, and the tokenizer."""
    for name, scheme in SCHEMES.items():
        file = None if vocabularies is None or not scheme.file else vocabularies / f"ggml-vocab-{scheme.file}.gguf"
        if name == "SmolLM" and not real.why_not():
            yield name, "file", load_tokenizer(real.model_folder())
        elif file is not None and file.is_file():
            yield name, "vocabulary", build(name, read_vocabulary(file))
        else:
            yield name, "rebuilt", build(name)
    for folder in folders:
        yield folder.name, "file", load_tokenizer(folder)


def cell(name: str, analysis: str, tokenizer: Any, reasons: list[str]) -> str:
    """What is asked, or that it is refused."""
    module, options = find_analysis(analysis)
    causal = tokenizer.mask_token is None
    try:
        plan = module.plan(Context(tokenizer), options)
        probes = [tokenize(r.probe, tokenizer, vocab=len(tokenizer), causal=causal) for r in plan]
    except UserError as refused:
        reasons.append(f"{name}, `{analysis}`: {refused.observed}")
        return "–"
    if analysis == "addition":
        return "; ".join(question(probes[0], i, tokenizer) for i in _each(probes[0], "context"))
    if analysis in NUMBERS:
        return question(probes[0], 0, tokenizer)
    if analysis == "shared_concepts":
        languages = probes[0].probe.labels["language"]
        return ", ".join(str(languages.count(language)) for language in LANGUAGES)
    return str(sum(len(probe.ids) for probe in probes))


def _each(probe: TokenizedProbe, label: str) -> list[int]:
    """The last question of the first sum in every context."""
    values, pairs = probe.probe.labels[label], probe.probe.labels["pair"]
    return [
        max(i for i, pair in enumerate(pairs) if pair == pairs[values.index(value)]) for value in dict.fromkeys(values)
    ]


def question(probe: TokenizedProbe, row: int, tokenizer: Any) -> str:
    """The end of a question, and its answer."""
    assert probe.probe.answer is not None
    return f"`{probe.probe.text[row][-SHOWN:].replace(chr(10), ' ')}`→`{probe.probe.answer[row]}`"


if __name__ == "__main__":
    main()
