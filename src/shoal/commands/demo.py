"""Demo: a network trained, then made at least twice as fast, with the evidence; under three minutes on two cores.

shoal demo              a second time it shows what is already there
shoal demo --fresh      does it again
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.commands._options import Json, Quiet, Seed
from shoal.commands._talk import Talk
from shoal.core.errors import BadSetting

DATA, SPEC = "digits", "residual(conv) 24x16"
TO, KEEP = "latency<=50%", "-1pt"
EPOCHS = 12
HEALING = {"lr": 1e-3, "batch": 64, "epochs": 8, "ema": 0.98, "clip": 1.0, "augment": ["shift"]}
COMPRESSORS = ("skip", "flatten[together=[2],wide=[]]")
FAST = {"epochs": 1}  # of training and of healing, with --fast


def run(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where both networks are kept.")] = Path("runs/demo"),
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do it again, though it is there.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Train and heal too little: to see that it runs.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    talk = Talk(as_json, quiet)
    for path in [out, *out.parents]:
        if path.exists() and not path.is_dir():
            raise BadSetting(f"--out {out}: {path} is a file; choose another folder")
    talk.say(f"A residual network of 24 layers, {SPEC}, learns to read {DATA}: 1797 scans of 8x8 pixels.")
    talk.say(f"Then it is made shallower: {TO.replace('<=', ' at most ')} of now, at most one point of accuracy lost.")

    from shoal.commands._compressing import Order as Compress  # brings torch: something to read comes before
    from shoal.commands._demo import compressed_part, reload_part, trained_part
    from shoal.commands._trained import Order as Train

    train = Train(DATA, spec=SPEC, epochs=FAST["epochs"] if fast else EPOCHS, seed=seed)
    compress = Compress(str(out / "trained"), to=TO, keep=KEEP, settings=HEALING, seed=seed, compressors=COMPRESSORS)
    if fast:
        compress = compress._replace(controls=False, settings=FAST)
    talk.say("\n1. Training")
    anew = trained_part(talk, train, out / "trained", fresh=fresh)
    talk.say("\n2. Compressing: what does each layer add, what does it cost, which can go?")
    report, module, failure = compressed_part(talk, compress, out / "compressed", fresh=fresh or anew)
    talk.say("\n3. Loading it again from disk")
    equal = reload_part(talk, out / "compressed", module)
    talk.say(
        f"\nWhere to look next: {out / 'compressed' / 'report.html'}; shoal show {out / 'compressed'}; shoal --help"
    )
    talk.done(
        {"trained": str(out / "trained"), "compressed": str(out / "compressed"), "equal": equal, "report": report}
    )
    if failure is not None:
        raise failure
    return 0
