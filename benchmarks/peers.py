"""What do the same numbers of one model cost with plain ``transformers``, TransformerLens, nnsight and this project?

    python benchmarks/peers.py [--turns 5] [--prompts 256]     # after: pip install 'circuit-dynamics[peers]'

A model of the sizes of Pythia 70m with random weights; prompts of 16 random tokens, and of 64 of which the first 48 are
common to all. Wanted are the residual stream behind every layer at the last token, and the next token's distribution there:
log-probability and rank of the answer, the first choice, the entropy. Everybody has the weights in memory and takes turns;
what is printed are CPU seconds of one thread, and their ratio to a bare forward pass of the same prompts in the same turn,
which computes logits at the last token alone and keeps nothing. Medians. Peers that are not installed are left out.

- *plain loop*: batches of 32, ``output_hidden_states=True``, logits of all tokens: what one writes first.
- *TransformerLens*: ``run_with_cache`` of the bridge with a filter of names and ``pos_slice=-1``, in the same batches.
- *nnsight*: a trace that saves the layers' outputs at the last token, in the same batches.
- the same two with ``logits_to_keep=1``, where they pass it on: whoever knows of it saves the words of all other tokens.
- *this project, measured*: what ``dynamics collect`` does with the weights in memory.
- *this project, collected*: a further checkpoint of ``dynamics collect``, with reading, hashing and installing its weights, the
  sketch by which checkpoints are compared, and writing; CPU seconds of all threads, and those of the thread that computes,
  behind which the reading one hides. The bare pass has none of that to do.

The largest difference of each from the plain loop is printed; the exit code is 1 if one is above 1e-4.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import dynamics
from checkpoints.tokenizing import word_tokenizer
from dynamics.measurements import Activations, Answers
from dynamics.measurements.forward import measure
from dynamics.measurements.passes import tokens_at_once
from dynamics.models.architecture import architecture
from dynamics.probes import Probe, TokenizedProbe, tokenize
from dynamics.runs.config import Run

VOCAB = 50304
BATCH = 32
CLOSE = 1e-4
SETTINGS = {"16 tokens": (0, 16), "64 tokens, of which 48 are common": (48, 16)}
CONFIG: dict[str, Any] = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": VOCAB,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.25,
}

Found = dict[str, np.ndarray]


def save_series(folder: Path, checkpoints: int) -> None:
    """Checkpoints with random weights, stored in half precision like the published ones."""
    tokenizer = word_tokenizer([f"w{i}" for i in range(VOCAB)])
    for step in range(checkpoints):
        torch.manual_seed(step)
        model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**CONFIG)).half()
        model.save_pretrained(folder / f"step{step}")
        tokenizer.save_pretrained(folder / f"step{step}")


def prompts(count: int, common: int, own: int) -> Probe:
    """Random words, the first of which are the same in every prompt."""
    rng = np.random.default_rng(0)

    def words(n: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(0, VOCAB, n))

    beginning = words(common) + " " if common else ""
    texts = tuple(beginning + words(own) for _ in range(count))
    return Probe("peers", texts, answer=tuple(f" w{i}" for i in rng.integers(0, VOCAB, count)))


def model_in(folder: Path) -> Any:
    """The first checkpoint in single precision."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder / "step0", dtype=torch.float32, attn_implementation="eager"
    ).eval()


def answers(logits: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of logits (row, vocab): what is wanted of the next token."""
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(-1, wanted[:, None])
    return {
        "answer_logprob": own[:, 0],
        "answer_rank": (logprobs >= own).sum(-1) - 1,
        "predicted": logprobs.argmax(-1),
        "entropy": -(logprobs.exp() * logprobs).sum(-1),
    }


def in_batches(probe: TokenizedProbe, each: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Found:
    """What ``each`` gives for token ids (row, token): logits (row, vocab) and streams (row, layer, d_model)."""
    ids, wanted = torch.from_numpy(np.stack(probe.ids)), torch.from_numpy(probe.answer_ids)
    kept: list[dict[str, np.ndarray]] = []
    with torch.no_grad():
        for start in range(0, len(ids), BATCH):
            logits, streams = each(ids[start : start + BATCH])
            found = answers(logits, wanted[start : start + BATCH]) | {"resid_post": streams}
            kept.append({name: value.numpy() for name, value in found.items()})
    return {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}


def bare(folder: Path) -> Callable[[TokenizedProbe], None]:
    """Forward passes of the size that is fastest, logits of the last token."""
    model = model_in(folder)
    shape = architecture(model.config).shape

    def run(probe: TokenizedProbe) -> None:
        ids = torch.from_numpy(np.stack(probe.ids))
        size = tokens_at_once(8192, shape, "cpu") // ids.shape[1]
        with torch.inference_mode():
            for start in range(0, len(ids), size):
                model(input_ids=ids[start : start + size], use_cache=False, logits_to_keep=1)

    return run


def plain(folder: Path) -> Callable[[TokenizedProbe], Found]:
    """The loop that one writes first."""
    model = model_in(folder)
    last: dict[str, torch.Tensor] = {}
    # hidden states end with the norm's output: the last layer's own comes from a hook
    model.gpt_neox.layers[-1].register_forward_hook(lambda _m, _a, out: last.update(out=out))

    def each(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = model(input_ids=ids, output_hidden_states=True)
        streams = [h[:, -1] for h in output.hidden_states[1:-1]] + [_tensor(last["out"])[:, -1]]
        return output.logits[:, -1], torch.stack(streams, 1)

    return lambda probe: in_batches(probe, each)


def transformer_lens(folder: Path, **given: Any) -> Callable[[TokenizedProbe], Found]:
    """TransformerLens' bridge to the same model."""
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "step0")
    lens = TransformerBridge.boot_transformers(
        str(folder / "step0"), hf_model=model_in(folder), tokenizer=tokenizer, dtype=torch.float32
    )
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(CONFIG["num_hidden_layers"])]

    def each(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, cache = lens.run_with_cache(ids, names_filter=lambda name: name in names, pos_slice=-1, **given)
        streams = torch.stack([cache[name].reshape(len(ids), -1) for name in names], 1)
        return logits[:, -1], streams

    return lambda probe: in_batches(probe, each)


def nnsight(folder: Path, **given: Any) -> Callable[[TokenizedProbe], Found]:
    """nnsight around the same model."""
    from nnsight import NNsight, save

    model = NNsight(model_in(folder))

    def each(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with model.trace(input_ids=ids, use_cache=False, **given):
            kept = save([_tensor(layer.output)[:, -1] for layer in model.gpt_neox.layers])
            logits = save(model.output.logits[:, -1])
        return logits, torch.stack(kept, 1)

    return lambda probe: in_batches(probe, each)


def ours(folder: Path) -> Callable[[TokenizedProbe], Found]:
    """What a collection does with the weights in memory."""
    model = model_in(folder)
    described = architecture(model.config)

    def run(probe: TokenizedProbe) -> Found:
        found = measure(model, probe, [Activations("resid_post"), Answers()], architecture=described)
        return found | {"resid_post": found["resid_post"][:, 0]}

    return run


def collected(folder: Path, probe: Probe, checkpoints: int) -> tuple[float, float]:
    """CPU seconds of a further checkpoint of a collection: of the process, and of the thread that computes."""
    spent = []
    with tempfile.TemporaryDirectory() as place:
        records = [{"text": t, "answer": a} for t, a in zip(probe.text, probe.answer or (), strict=True)]
        file = Path(place) / "prompts.yaml"
        file.write_text("\n".join(f"- {{text: '{r['text']}', answer: '{r['answer']}'}}" for r in records))
        for count in (1, 1, checkpoints):  # the first call loads what later ones find ready
            run = Run.model_validate(
                {
                    "series": {"kind": "folder", "path": str(folder)},
                    "probes": {"peers": {"file": str(file), "sites": ["resid_post"], "positions": ["last"]}},
                    "exclude": list(range(count, checkpoints)),
                }
            )
            began = time.process_time(), time.thread_time()
            dynamics.collect("peers", run=run, traces=Path(place) / str(len(spent)))
            spent.append((time.process_time() - began[0], time.thread_time() - began[1]))
    return tuple((b - a) / (checkpoints - 1) for a, b in zip(*spent[1:], strict=True))  # type: ignore[return-value]


def contestants(folder: Path) -> dict[str, Callable[[TokenizedProbe], Any]]:
    """Name to what is run; those that are not installed, or do not take an option, are left out."""
    found: dict[str, Callable[[TokenizedProbe], Any]] = {"bare pass": bare(folder), "plain loop": plain(folder)}
    for name, module, make in (
        ("TransformerLens", "transformer_lens", transformer_lens),
        ("nnsight", "nnsight", nnsight),
    ):
        if importlib.util.find_spec(module) is None:
            print(f"{name} is not installed: pip install 'circuit-dynamics[peers]'")
            continue
        found[name] = make(folder)
        found[f"{name}, logits_to_keep=1"] = make(folder, logits_to_keep=1)
    return found | {"this project, measured": ours(folder)}


def _tensor(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def main() -> None:
    """Print the table; exit with 1 where somebody's numbers are others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--checkpoints", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    worst = 0.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_series(folder, arguments.checkpoints)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "step0")
        running = contestants(folder)
        for setting, (common, own) in SETTINGS.items():
            said = prompts(arguments.prompts, common, own)
            probe = tokenize(said, tokenizer, vocab=VOCAB)
            seconds: dict[str, list[float]] = {name: [] for name in running}
            values: dict[str, Found] = {}
            for turn in range(arguments.turns + 1):  # the first is for warming up
                for name in list(running):
                    gc.collect()
                    began = time.process_time()
                    values[name] = running[name](probe)
                    if turn:
                        seconds[name].append(time.process_time() - began)
            print(
                f"\n{arguments.prompts} prompts of {setting}: CPU seconds of one thread, medians of {arguments.turns}"
            )
            for name in running:
                ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["bare pass"], strict=True))
                text = ""
                if values[name] is not None and name != "plain loop":
                    apart = max(float(np.abs(values[name][k] - v).max()) for k, v in values["plain loop"].items())
                    worst = max(worst, apart)
                    text = f"   differs from the plain loop by at most {apart:.0e}"
                print(f"  {name:36s} {statistics.median(seconds[name]):6.2f}   {ratio:5.2f} x bare{text}", flush=True)
            base = statistics.median(seconds["bare pass"])
            spent, computing = collected(folder, said, arguments.checkpoints)
            print(f"  {'this project, collected':36s} {spent:6.2f}   {spent / base:5.2f} x bare   all threads")
            print(f"  {'':36s} {computing:6.2f}   {computing / base:5.2f} x bare   the computing thread")
    sys.exit(1 if worst > CLOSE else 0)


if __name__ == "__main__":
    main()
