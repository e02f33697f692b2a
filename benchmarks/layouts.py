"""What do the two layouts of a trace cost: files, bytes and seconds, of writing a checkpoint and of reading a trace?

    python benchmarks/layouts.py                       # the sizes of Pythia-410m: 24 layers of 1024
    python benchmarks/layouts.py --layers 36 --width 5120 --prompts 100 --checkpoints 2      # Pythia-12b

Writes random activations of the residual stream at two positions, attention scores of every head and answers of every prompt
through the trace's writer, checkpoint by checkpoint, once as files of one chunk and once as one shard per checkpoint and variable
(`layout: sharded`), then reads one layer at every checkpoint, and every layer of one. Seconds are of one process on a local disk
whose files are in memory; on a file system of a network every file costs a round trip besides.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np

from checkpoints.series import Checkpoint
from dynamics.store import Group, TraceDeclaration, TraceWriter, Variable, open_trace


def declared(
    layout: Literal["local", "sharded"], checkpoints: int, layers: int, width: int, heads: int, prompts: int
) -> TraceDeclaration:
    """A trace of one probe."""
    stream = (prompts, 2, layers, width)
    variables = (
        Variable("resid_post", ("prompt", "position", "layer", "d_model"), stream, "activation", ""),
        Variable("answer_logprob", ("prompt",), (prompts,), "float", "nat"),
        Variable("induction_score", ("layer", "head"), (layers, heads), "float", ""),
    )
    series = tuple(Checkpoint(step, str(step)) for step in range(checkpoints))
    group = Group("facts", "", {"text": tuple(map(str, range(prompts)))}, variables)
    return TraceDeclaration(series, (group,), "float16", layout=layout)


def measured(declaration: TraceDeclaration, path: Path) -> dict[str, float]:
    """Files, bytes and seconds of one layout."""
    writer = TraceWriter(path, declaration)
    (group,) = declaration.groups
    random, writing = np.random.default_rng(0), 0.0
    for index in range(len(declaration.checkpoints)):
        values = {v.name: random.standard_normal(v.shape, dtype=np.float32) for v in group.variables}
        began = time.process_time()
        writer.write(index, group.name, values)
        writer.commit(index, digest=f"{index}", stored_dtype="float32")
        writing += time.process_time() - began
    files = [p for p in path.rglob("*") if p.is_file()]
    data = open_trace(path)[group.name]["resid_post"]
    np.asarray(data.isel(layer=-1, checkpoint=0))  # what the first reading imports
    began = time.process_time()
    np.asarray(data.isel(layer=0))
    layer = time.process_time() - began
    began = time.process_time()
    np.asarray(data.isel(checkpoint=-1))
    count = len(declaration.checkpoints)
    return {
        "files a checkpoint": declaration.objects_per_checkpoint(),
        "files": len(files),
        "MB a checkpoint": sum(p.stat().st_size for p in files) / count / 1e6,
        "s to write one": writing / count,
        "s to read a layer of all": layer,
        "s to read all of one": time.process_time() - began,
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=200)
    options = parser.parse_args()
    rows = {}
    layouts: tuple[Literal["local", "sharded"], ...] = ("local", "sharded")
    for layout in layouts:
        with tempfile.TemporaryDirectory() as folder:
            declaration = declared(
                layout, options.checkpoints, options.layers, options.width, options.heads, options.prompts
            )
            rows[layout] = measured(declaration, Path(folder) / "t.zarr")
    print(
        f"{options.checkpoints} checkpoints of {options.layers} layers of {options.width}, {options.prompts} prompts; CPU seconds"
    )
    for what in rows["local"]:
        print(f"{what:<26}" + "".join(f"{layout} {row[what]:>10,.3f}   " for layout, row in rows.items()).rstrip())


if __name__ == "__main__":
    main()
