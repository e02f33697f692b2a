"""Do built-in analyses of a real model say what plain ``transformers`` says on the same prompts, and are they silent at random weights?

    python benchmarks/healing.py ioi agreement gender induction        # SmolLM2-135M from random to trained (``make real``)
    python benchmarks/healing.py ioi --steps 0 100 --few               # two checkpoints, circuits with the fewest passes
    python benchmarks/healing.py --traces FOLDER ...                   # go on with what was collected there

The series has weights (1 - s/100) x random + s/100 x trained at step s. Each analysis is collected with its default prompts, which
takes minutes to an hour of a core a checkpoint at trained weights where it has circuits; a killed run goes on. Printed are its
headline findings, and per probe what the trace says at the last step beside a plain loop over the same texts, one at a time, in float32 as
collected. Ends with 1, and says why, if two values differ by more than 2% or cannot be compared, if nothing was compared, or if a
headline is present from start where the first step has random weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import dynamics
from checkpoints.local import FolderConfig
from dynamics.analyser import analyse
from dynamics.analysis import Context, Finding, Probe, Request, Trace
from dynamics.measurements import Answers, Circuit, RepeatAttention, TokenLoss
from dynamics.runs.config import AnalysisEntry, Run
from dynamics.runs.plan import built_in, find_analysis
from tests import real

ENOUGH = 0.02
FEW = {"points": 1, "sizes": 2, "passes": 1}
"""For circuits whose prompts' values are asked about, and not which edges they have."""


def run_of(analysis: str, steps: Sequence[int], few: bool) -> Run:
    """What a runs file would say."""
    _, options = find_analysis(analysis)
    fewer = {key: value for key, value in FEW.items() if few and key in type(options).model_fields}
    return Run(
        description=f"{real.NAME} from random to trained weights",
        series=FolderConfig(path=real.healing()),
        analyses=(AnalysisEntry(name=analysis, options=fewer),),
        exclude=tuple(step for step in real.HEALING if step not in steps),
        device="cpu",
    )


class Plain:
    """The last checkpoint as ``from_pretrained`` gives it, asked one text at a time."""

    def __init__(self, step: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = real.healing() / f"step{step}"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.model.eval()

    def answers(self, texts: Sequence[str], answers: Sequence[str], foils: Sequence[str]) -> np.ndarray:
        """(prompt, 3) log p(answer), log p(answer) - log p(foil), and whether the answer is the first choice."""
        import torch

        result = []
        with torch.inference_mode():
            for text, answer, foil in zip(texts, answers, foils, strict=True):
                last = self.model(self._ids(text), logits_to_keep=1).logits[0, -1].log_softmax(-1)
                right, wrong = self._next(text, answer), self._next(text, foil)
                result.append((float(last[right]), float(last[right] - last[wrong]), float(last.argmax() == right)))
        return np.array(result)

    def repeated(self, texts: Sequence[str], period: int) -> tuple[float, float]:
        """Mean loss on the second of two copies, and the largest head's attention to what followed the token before."""
        import torch

        losses, heads = [], []
        with torch.inference_mode():
            for text in texts:
                ids = self._ids(text)
                out = self.model(ids, output_attentions=True)
                loss = torch.nn.functional.cross_entropy(out.logits[0, :-1], ids[0, 1:], reduction="none")
                losses.append(float(loss[-period + 1 :].mean()))
                query = torch.arange(ids.shape[1] - period, ids.shape[1])
                heads.append(torch.stack([a[0][:, query, query - period + 1].mean(-1) for a in out.attentions]).numpy())
        return float(np.mean(losses)), float(np.mean(heads, axis=0).max())

    def _ids(self, text: str) -> Any:
        return self.tokenizer(text, return_tensors="pt")["input_ids"]

    def _next(self, text: str, answer: str) -> int:
        """The token that an answer adds."""
        return int(self.tokenizer(text + answer)["input_ids"][len(self.tokenizer(text)["input_ids"])])


def compared(trace: Trace, request: Request, plain: Plain) -> Iterator[tuple[str, float, float]]:
    """(what, value in the trace, plain value) of one probe at the last checkpoint."""
    probe, kinds = request.probe, {type(m) for m in request.measurements}

    def last(variable: str) -> np.ndarray:
        return np.asarray(trace.values(probe.name, variable)[-1], dtype=np.float64)

    if Circuit in kinds:
        assert probe.answer and probe.foil and probe.corrupted
        for what, texts in (("clean", probe.text), ("corrupted", probe.corrupted)):
            found = plain.answers(texts, probe.answer, probe.foil)
            words = {"clean": "answer over foil (nat)", "corrupted": "the same after the twin"}[what]
            yield words, last(f"{what}_difference").mean(), found[:, 1].mean()
    if Answers in kinds:
        assert probe.answer
        found = plain.answers(probe.text, probe.answer, probe.foil or probe.answer)
        yield "log p(answer)", last("answer_logprob").mean(), found[:, 0].mean()
        right = last("predicted") == trace.probe(probe.name)["answer_id"].values
        yield "answered", right.mean(), found[:, 2].mean()
        if probe.foil:
            yield "answer over foil (nat)", (last("answer_logprob") - last("foil_logprob")).mean(), found[:, 1].mean()
    if RepeatAttention in kinds and TokenLoss in kinds:
        yield from _repeats(probe, last, plain)


def _repeats(probe: Probe, last: Any, plain: Plain) -> Iterator[tuple[str, float, float]]:
    period = int(probe.labels["period"][0])
    loss, head = plain.repeated(probe.text, period)
    yield "loss on the second half (nat)", float(last("token_loss")[:, -period + 1 :].mean()), loss
    yield "prefix matching of the best head", float(last("prefix_matching").mean(0).max()), head


def headlines(name: str, run: Run, traces: Path) -> Iterator[Finding]:
    """A line of Markdown per headline finding: state, onset, and values at the first and the last step."""
    for finding in analyse(name, run=run, traces=traces)[name].findings:
        if finding.headline:
            found = finding.emergence
            onset = "–" if found.onset is None or found.onset.by is None else f"({found.onset.after}, {found.onset.by}]"
            ends = " | ".join(f"{finding.values[i]:.3g}" for i in (0, -1))
            print(f"| `{name}` | {finding.title} | {found.state} | {onset} | {ends} | {found.reason} |", flush=True)
            yield finding


def away(traced: float, alone: float) -> float:
    """Relative difference of a value in a trace and the plain one; infinite where one of them is no number."""
    if not np.isfinite([traced, alone]).all():
        return float("inf")
    return abs(traced - alone) / max(abs(alone), 1e-6)


def wrong(found: Sequence[Finding], differences: Sequence[float], first: int) -> list[str]:
    """What speaks against the trace, one line each.

    Args:
        found: headline findings of the series.
        differences: of every value that was compared, see :func:`away`.
        first: step of the first checkpoint; its weights are random at step 0 alone.
    """
    lines = [] if differences else ["nothing was compared"]
    if over := [one for one in differences if not one <= ENOUGH]:
        lines.append(f"{len(over)} of {len(differences)} values differ by more than {ENOUGH:.0%}, or are no numbers")
    there = [f for f in found if f.emergence.state == "present from start"] if first == 0 else []
    return lines + [f"{f.key} is present from start, at random weights" for f in there]


def main() -> None:
    """Collect, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("analyses", nargs="*", help="which; all that are built in, if none is named")
    parser.add_argument("--steps", type=int, nargs="+", default=list(real.HEALING))
    parser.add_argument(
        "--few", action="store_true", help="circuits with the fewest passes: other edges, the same answers"
    )
    parser.add_argument("--traces", type=Path, help="folder of the traces; a temporary one if none is named")
    given = parser.parse_args()
    if reason := real.why_not():
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        traces = given.traces or Path(temporary)
        lines = tried(given.analyses or built_in(), given, traces)
        print("\n".join(lines))
        sys.exit(1 if lines else 0)


def tried(analyses: Sequence[str], given: argparse.Namespace, traces: Path) -> list[str]:
    """Collect, print both tables, and say what is wrong."""
    runs = {name: run_of(name, given.steps, given.few) for name in analyses}
    for name, run in runs.items():
        dynamics.collect(name, run=run, traces=traces)
    print("\n| analysis | finding | state | onset | first | last | note |\n|---|---|---|---|---|---|---|")
    found = [finding for name, run in runs.items() for finding in headlines(name, run, traces)]
    plain, differences = Plain(max(given.steps)), list[float]()
    print("\n| analysis | probe | prompts | value | trace | plain | differs by |\n|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        module, options = find_analysis(name, run.analyses[0].options)
        trace = Trace(traces / f"{name}.zarr")
        for request in module.plan(Context(plain.tokenizer), options):
            for what, traced, alone in compared(trace, request, plain):
                differences.append(away(float(traced), float(alone)))
                cells = (
                    f"`{name}`",
                    f"`{request.probe.name}`",
                    len(request.probe),
                    what,
                    f"{traced:.4f}",
                    f"{alone:.4f}",
                )
                print("| " + " | ".join(map(str, cells)) + f" | {differences[-1]:.2%} |", flush=True)
    return wrong(found, differences, min(given.steps))


if __name__ == "__main__":
    main()
