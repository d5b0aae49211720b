"""Probe: learn how fast this machine is, once, so that latency can be told before a net is built.

shoal probe                               eager, as many threads as torch takes, 100 seconds
shoal probe --runtime onnxruntime --threads 1
shoal probe --fresh                       again, though it was done

Operations and small nets of many sizes are timed; nothing else should run meanwhile.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.commands._options import Json, Quiet
from shoal.commands._talk import Talk
from shoal.core.errors import BadData, BadSetting

if TYPE_CHECKING:
    from shoal.costing.predicting.probing import Probed


def run(
    runtime: Annotated[str, typer.Option(help="eager, compile or onnxruntime.")] = "eager",
    threads: Annotated[int | None, typer.Option(min=1, help="As many as torch takes if not said.")] = None,
    seconds: Annotated[float, typer.Option(help="How long it may take: at most 120.")] = 100.0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do it again, though it was done.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    talk = Talk(as_json, quiet)
    if runtime not in ("eager", "compile", "onnxruntime"):
        raise BadSetting(f"--runtime {runtime!r}: is none; give eager, compile or onnxruntime")
    if not 0 < seconds <= 120:
        raise BadSetting(f"--seconds {seconds:g}: a probe takes more than 0 and at most 120")

    import torch  # slow: what is cheap comes before

    from shoal.costing.predicting.probing import probe, probe_file

    threads = threads or torch.get_num_threads()
    path = probe_file(runtime, threads)
    found = None if fresh else _there(talk, path)
    anew = found is None
    if found is None:
        with talk.progress(f"probing {runtime} with {threads} threads") as tick:
            found = probe(runtime, threads=threads, seconds=seconds, progress=lambda line: tick(None, line))
    _tell(talk, found, path, anew)


def _there(talk: Talk, path: Path) -> Probed | None:
    """What was found before; None where there is nothing, or it cannot be read."""
    from shoal.costing.predicting.probing import Probed

    if not path.exists():
        return None
    try:
        return Probed.read(path)
    except BadData as error:
        talk.say(f"{error}: it is done again")
        return None


def _tell(talk: Talk, found: Probed, path: Path, anew: bool) -> None:
    import numpy as np

    families = Counter(sample.family for sample in found.samples)
    error = float(np.median(np.abs(np.exp(found.errors) - 1)))
    told = ", ".join(f"{number} {family}" for family, number in families.items())
    talk.say(f"{found.machine}, {found.runtime}, {found.threads} threads, torch {found.torch}")
    talk.say(f"timed   {len(found.samples)} operations ({told}) and {len(found.errors)} nets in {found.seconds:.0f} s")
    talk.say(f"error   {error:.1%}: half of the nets, each left out of the fit, were predicted nearer than that")
    talk.say(f"{'kept in' if anew else 'was there already, in'} {path}{'' if anew else '; --fresh does it again'}")
    talk.done(
        {
            "machine": found.machine,
            "torch": found.torch,
            "runtime": found.runtime,
            "threads": found.threads,
            "seconds": found.seconds,
            "operations": families,
            "nets": len(found.errors),
            "error": error,
            "file": str(path),
            "anew": anew,
        }
    )
