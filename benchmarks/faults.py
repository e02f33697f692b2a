"""Is anything lost, or wrong without being said, when a process dies, a disk is full, a file is damaged, or input is hostile?

    python benchmarks/faults.py                # every part
    python benchmarks/faults.py kills full     # some: kills, full, damage, inputs
    python benchmarks/faults.py damage --every-file

Every part is ``fault_PART.py`` with a function ``run`` that returns rows of figures: faults that were tried; those that were
survived (what was there is still there, and the same command goes through once the fault is gone); those that were noticed
(said as an error or a finding, without a traceback), where there is something to notice. Exit code 1 if any of them was not.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.fault_figures import Figures, table  # noqa: E402

PARTS = ("kills", "full", "damage", "inputs")


def main() -> None:
    """Run parts and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: those that are there)")
    parser.add_argument("--every-file", action="store_true", help="Damage every file, not two of each kind.")
    arguments = parser.parse_args()
    chosen = arguments.parts
    if unknown := [part for part in chosen if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    rows: list[Figures] = []
    began = time.perf_counter()
    for part in chosen or [part for part in PARTS if (HERE / f"fault_{part}.py").is_file()]:
        options = {"each": None} if part == "damage" and arguments.every_file else {}
        rows += importlib.import_module(f"benchmarks.fault_{part}").run(**options)
    for row in rows:
        for failure in row.failures:
            print(f"{row.what}: {failure}")
    print(table(rows))
    print(f"{time.perf_counter() - began:.0f} s")
    sys.exit(any(not row.sound for row in rows))


if __name__ == "__main__":
    main()
