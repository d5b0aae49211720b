"""Any wiring with any block, from the command line: twenty-one pairs learn digits written by hand.

    python examples/every_wiring.py                  MNIST, 0.3 of an epoch each; half an hour on two cores
    python examples/every_wiring.py --data digits --epochs 4

Every pair is one call of ``shoal train``. It has learned where its accuracy on the test part is above 50% for certain:
ten classes, so 10% is chance. The exit code is 1 where one has not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PAIRS = (
    "fractal(conv) 3x32-3x64",
    "plain(rep) 2x16-2x32",
    "residual(bottleneck) 3x32-3x64",
    "grouped(conv) 4x16-4x32",
    "looped(conv norm=layer) 2x16-2x32",
    "dense[growth=12](conv) 4x16-4x32",
    "sparse[growth=12](conv) 4x16-4x32",
    "dual_path[growth=4](bottleneck) 3x16-3x32",
    "layer_scale[init=0.1](squeeze) 3x16-3x32",
    "scaled(preact) 3x16-3x32",
    "path_ensemble(res2) 3x16-3x32",
    "ode(conv) 4x16-4x32",
    "stochastic(conv) 3x16-3x32",
    "streams(rep) 6x16",
    "cross_stage(conv) 3x16-3x32",
    "iterative(star) 3x16-3x32",
    "hierarchical(nin) 4x16-4x32",
    "reversible(conv) 4x16-4x32",
    "gated(conv) 3x16-3x32",
    "routed(conv) 3x16-3x32",
    "patches | residual(transformer) 3x32",
)
LEARNED = 0.5


def main() -> None:
    """Train every pair; print what it reached."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", default="mnist")
    reader.add_argument("--epochs", default="0.3")
    reader.add_argument("--only", default="", help="pairs that begin so")
    given = reader.parse_args()
    failed = 0
    for spec in (pair for pair in PAIRS if pair.startswith(given.only)):
        with tempfile.TemporaryDirectory() as folder:
            out = ["--out", str(Path(folder) / "run"), "--json", "--quiet"]
            call = [sys.executable, "-m", "shoal", "train", given.data, "--spec", spec, "--epochs", given.epochs, *out]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{spec:50} exit {done.returncode}: {done.stderr.strip()}", flush=True)
            failed += 1
            continue
        quality = json.loads(done.stdout)["report"]["test"]["quality"]
        learned = quality["low"] > LEARNED
        failed += not learned
        found = f"{quality['value']:.1%} [{quality['low']:.1%}, {quality['high']:.1%}]"
        print(f"{spec:50} {found} {'' if learned else 'has NOT learned'}", flush=True)
    print(f"{len(PAIRS) - failed} of {len(PAIRS)} learned" if not given.only else f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
