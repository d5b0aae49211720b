"""Opening data: splits that cover and do not meet, encoders fitted on training alone, real files, and every refusal."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from shoal.core.errors import BadArtifact, BadData, BadSetting
from shoal.core.part import Part
from shoal.data import Dataset, Signature, encoder_from_json, open_data
from shoal.data.columns import Category, Number, fit_table
from shoal.data.encoders import Bytes, Given, Pixels
from shoal.data.named import data_folder
from shoal.data.npz import from_delta
from shoal.data.split import cut

quick = settings(max_examples=25, deadline=None)


def real(name: str) -> Path:
    """A file of the shared data folder, or a skip."""
    folder = data_folder()
    if folder is None or not (folder / name).is_file():
        pytest.skip("needs $SHOAL_DATA")
    return folder / name


def table(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"size": random.normal(5, 2, rows), "colour": random.choice(["red", "blue"], rows)})
    frame["price"] = frame["size"] * 3 + (frame["colour"] == "red") + random.normal(0, 0.1, rows)
    return frame


def images(rows: int = 40, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (rows, *(shape or (6, 6)))).astype(np.uint8), np.arange(rows) % 4


def refused(match: str, source: object, kind: type[Exception] = BadData, **asked: object) -> None:
    with pytest.raises(kind, match=match) as caught:
        open_data(source, **asked)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


# --- splits -----------------------------------------------------------------------------------------------------------


@quick
@given(st.lists(st.integers(0, 4), min_size=10, max_size=200), st.integers(0, 99), st.integers(0, 5))
def test_parts_cover_without_meeting_and_are_even_over_classes(labels, seed, official):
    y = np.array(labels + [0] * official)
    if max(np.bincount(labels)) < 3:
        return
    parts, _ = cut(y, seed, official)
    rows = torch.cat([parts.train, parts.valid, parts.test])
    assert sorted(rows.tolist()) == list(range(len(y)))
    if official:
        assert parts.test.tolist() == list(range(len(labels), len(y)))
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        held = [int((y[part.numpy()] == label).sum()) for part in (parts.train, parts.valid, parts.test)]
        if count < 3:
            assert held[1] == 0
            continue
        assert abs(held[1] - 0.15 * count) <= 1
        if not official:
            assert abs(held[2] - 0.3 * count) <= 1
    again, _ = cut(y, seed, official)
    assert torch.equal(again.train, parts.train)


def test_same_seed_same_split_and_fingerprint():
    frame = table()
    first, same, other = (open_data(frame, target="price", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.train.x, same.train.x)
    assert first.fingerprint == same.fingerprint != other.fingerprint
    changed = frame.assign(size=frame["size"] + (frame.index == 7))
    assert open_data(changed, target="price", seed=3).fingerprint != first.fingerprint
    assert len(first.fingerprint) == 16


def test_small_class_stays_in_training_and_is_noted():
    y = np.array([0] * 20 + [1] * 20 + [2] * 2)
    data = open_data((np.random.default_rng(0).normal(size=(42, 3)), y))
    assert int((data.train.y == 2).sum()) == 2
    assert any("less than 3 rows" in note for note in data.notes)


def test_classes_all_small_are_split_at_random():
    data = open_data((torch.randn(40, 3), torch.arange(40) // 2), as_given=True)
    assert [len(data.train), len(data.valid), len(data.test)] == [22, 6, 12]
    assert any("split at random" in note for note in data.notes)
    assert any("no row in training" in note for note in data.notes)


def test_batches_take_and_example():
    data = open_data(images())
    seen = torch.cat([y for _, y in data.train.batches(7)])
    assert torch.equal(seen, data.train.y)
    mixed = list(data.train.batches(7, shuffle=torch.Generator().manual_seed(0)))
    assert sorted(torch.cat([y for _, y in mixed]).tolist()) == sorted(seen.tolist())
    assert mixed[0][0].dtype == torch.float32
    x, y = data.train.batch(torch.tensor([3, 1]))
    assert torch.equal(x[0], data.train.batch(slice(3, 4))[0][0])
    assert y.tolist() == data.train.y[[3, 1]].tolist()
    assert torch.equal(data.train.take(5, 1).x, data.train.take(5, 1).x)
    assert len(data.train.take(5, 1)) == 5
    assert data.train.take(500, 1) is data.train
    assert data.example(2).shape == (2, 6, 6, 1)
    with pytest.raises(BadSetting):
        list(data.train.batches(0))
    with pytest.raises(BadSetting):
        data.train.take(0, 0)


# --- encoders ---------------------------------------------------------------------------------------------------------

cells = st.one_of(st.none(), st.floats(-1e6, 1e6))
words = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "new"]))


@quick
@given(st.lists(st.tuples(cells, words), min_size=9, max_size=9), st.integers(0, 5))
def test_table_encoder_sees_training_rows_only(replaced, seed):
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"n": random.normal(size=60), "w": random.choice(["a", "b"], 60), "y": np.arange(60) % 2})
    before = open_data(frame, target="y", seed=seed)
    held_out = cut(frame["y"].to_numpy(), seed)[0].test.numpy()
    other = frame.astype({"w": object})
    other.loc[held_out[:9], "n"] = [np.nan if number is None else number for number, _ in replaced[: len(held_out)]]
    other.loc[held_out[:9], "w"] = [word for _, word in replaced[: len(held_out)]]
    after = open_data(other, target="y", seed=seed)
    assert after.encoder == before.encoder
    assert torch.equal(after.train.x, before.train.x)
    assert torch.isfinite(after.test.x).all()


@quick
@given(st.integers(0, 5), st.integers(0, 255))
def test_pixel_encoder_sees_training_rows_only(seed, value):
    x, y = images()
    before = open_data((x, y), seed=seed)
    other = x.copy()
    other[cut(y, seed)[0].test.numpy()] = value
    assert open_data((other, y), seed=seed).encoder == before.encoder


@quick
@given(st.lists(st.tuples(cells, words, st.booleans()), min_size=12, max_size=40))
def test_table_encoder_survives_json_and_gives_finite_features(rows):
    frame = pd.DataFrame(rows, columns=["n", "w", "b"])
    frame["n"] = frame["n"].astype(float)
    frame["k"] = np.arange(len(frame)) % 3
    encoder, _ = fit_table(frame)
    back = encoder_from_json(json.loads(json.dumps(encoder.to_json())))
    assert back == encoder
    coded = encoder(frame)
    assert torch.equal(coded, back(frame))
    assert coded.shape == (len(frame), len(encoder.features()))
    assert torch.isfinite(coded).all()


def test_numbers_missing_and_long_tails():
    values = pd.Series([1.0, 2, 3, np.nan, 5] * 20)
    made = Number.fit(values, "n")
    assert isinstance(made, Number)
    assert (made.median, made.missing, made.long_tail) == (2.5, True, False)
    coded = made.encode(pd.Series([np.nan, 2.75]))
    assert coded[:, 1].tolist() == [1, 0]
    assert coded[1, 0] == pytest.approx(0)
    tail = Number.fit(pd.Series([0.0, 1.0] * 200 + [1e5]), "t")
    assert isinstance(tail, Number)
    assert tail.long_tail
    assert Number.fit(pd.Series([4.0] * 9), "c") == "constant"
    assert Number.fit(pd.Series([np.nan] * 9), "e") == "empty"


def test_categories_rare_missing_and_unseen():
    made = Category.fit(pd.Series(["a"] * 20 + ["b"] * 10 + ["rare"] + [None] * 3, dtype=object), "w")
    assert isinstance(made, Category)
    assert (made.levels, made.other, made.missing) == (("a", "b"), True, True)
    coded = made.encode(pd.Series(["b", "rare", "never seen", None], dtype=object))
    assert coded.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    whole = Category.fit(pd.Series(["a", "nan"] * 20, dtype=object), "w")
    assert isinstance(whole, Category)
    assert whole.encode(pd.Series(["never seen", None], dtype=object)).sum() == 0  # no untrained weight is woken
    assert "identifier" in str(Category.fit(pd.Series([f"id{n}" for n in range(50)]), "i"))


def test_encoding_new_rows_of_a_table():
    frame = table()
    frame["day"] = pd.date_range("2020-01-01", periods=60, freq="D")
    frame["whole"] = pd.array([1, None, 3] * 20, dtype="Int64")
    frame["flag"] = pd.array([True, False, None] * 20, dtype="boolean")
    frame["kind"] = pd.Categorical(["p", "q", "r"] * 20)
    data = open_data(frame, target="price")
    new = data.encoder(frame.drop(columns="price"))
    held_out = cut(np.zeros(60), 0)[0].test
    assert torch.allclose(new[held_out], data.test.x)
    assert torch.equal(data.encoder(frame.iloc[::-1]), new.flip(0))  # other order of rows, a column more
    with pytest.raises(BadData, match="'size' is missing"):
        data.encoder(frame.drop(columns="size"))
    with pytest.raises(BadData, match="'size': 'large' is not a number"):
        data.encoder(frame.astype({"size": object}).replace({"size": {frame["size"][0]: "large"}}))
    arrays = open_data((np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2))
    assert arrays.encoder(np.zeros((2, 3))).shape == (2, 3)
    with pytest.raises(BadData, match="columns of training"):
        arrays.encoder(np.zeros((2, 4)))


def test_pixels_of_every_layout():
    x, y = images(40, 6, 7, 3)
    data = open_data((x, y))
    assert (data.signature.places, data.signature.channels) == ((6, 7), 3)
    assert data.train.x.dtype == torch.uint8
    every = data.encoder(x)
    assert torch.equal(every, data.encoder(x.transpose(0, 3, 1, 2)))
    prepared = data.train.batch(slice(None))[0]
    assert prepared.mean((0, 1, 2)).abs().max() < 1e-4
    assert (prepared.std((0, 1, 2)) - 1).abs().max() < 1e-2
    back = encoder_from_json(json.loads(json.dumps(data.encoder.to_json())))
    assert back == data.encoder
    with pytest.raises(BadData, match="shape"):
        data.encoder(x[:, :5])
    with pytest.raises(BadData, match="whole numbers"):
        data.encoder(x / 255)


def test_array_layouts():
    floats = np.random.default_rng(0).normal(size=(40, 3, 8, 8))
    y = np.arange(40) % 2
    first = open_data((floats, y))
    assert (first.signature.places, first.signature.channels) == ((8, 8), 3)
    assert any("channels last" in note for note in first.notes)
    assert torch.allclose(first.encoder(floats), open_data((floats.transpose(0, 2, 3, 1), y)).encoder(floats))
    assert open_data((floats[:, 0], y)).signature.channels == 1
    sequence = open_data((floats[:, 0, :5], y))
    assert (sequence.signature.places, sequence.signature.channels) == ((5,), 8)
    assert any("sequences" in note for note in sequence.notes)
    flat = open_data((floats[:, 0].reshape(40, 64), y))
    assert (flat.signature.places, flat.signature.channels) == ((), 64)
    constant = open_data((np.zeros((40, 4, 4)), y))
    assert torch.isfinite(constant.example()).all()


def test_tensors_of_every_kind():
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.arange(40) % 2
    exact = open_data((x, y)).train.x
    assert torch.equal(open_data((x.clone().requires_grad_(), y)).train.x, exact)
    assert torch.allclose(open_data((x.bfloat16(), y)).train.x, exact, atol=0.05)
    assert open_data((x, x[:, 0].bfloat16())).signature.task.name == "regression"
    large = torch.randint(0, 1000, (40, 4, 4), dtype=torch.int32)
    assert open_data((large, y)).train.x.dtype == torch.float32
    assert open_data((large % 256, y)).train.x.dtype == torch.uint8
    levels = pd.DataFrame(x.numpy(), columns=pd.MultiIndex.from_product([["a", "b"], [1, 2]]))
    assert open_data(levels, target="('b', 2)").signature.channels == 3


def test_other_encoders_and_json():
    assert Bytes()("abc").tolist() == [[97, 98, 99]]
    assert Bytes()(["ab", b"cd"]).shape == (2, 2)
    with pytest.raises(BadData, match="one length"):
        Bytes()(["a", "bc"])
    for encoder in (Bytes(), Given()):
        assert encoder_from_json(encoder.to_json()) == encoder
    for wrong in ({"kind": "pixel"}, {"kind": "pixels"}, None, {"kind": "table", "inputs": [], "columns": [{}]}):
        with pytest.raises(BadArtifact):
            encoder_from_json(wrong)
    signature = Signature((4, 5), 3, None, Part("classification", {"classes": 7}))
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature
    with pytest.raises(BadArtifact):
        Signature.from_json({"places": [1]})


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (["yes", "no"] * 20, "classification[classes=2]"),
        ([True, False] * 20, "classification[classes=2]"),
        ([3, 5, 9, 3] * 10, "classification[classes=3]"),
        ([0.0, 1.0] * 20, "classification[classes=2]"),
        (list(range(40)), "regression[outputs=1]"),
        ([float(value % 5) for value in range(40)], "regression[outputs=1]"),
    ],
)
def test_task_found(y, task):
    data = open_data(table(40).assign(y=y), target="y")
    assert str(data.signature.task) == task
    assert data.notes[0].startswith(f"target y: {task.split('[')[0]}")


def test_task_forced():
    frame = table(40).assign(y=[1, 2, 3, 4] * 10)
    assert open_data(frame, target="y", task="regression").signature.task.name == "regression"
    assert open_data(frame.astype({"y": float}), target="y", task="classification").classes == ("1", "2", "3", "4")
    refused("unknown", frame, BadSetting, target="y", task="ranking")
    refused("target colour: '(red|blue)' is not a number", frame, target="colour", task="regression")


def test_regression_is_standardised_on_training_rows():
    data = open_data(table(), target="price")
    assert data.target_scale is not None
    assert float(data.train.y.mean()) == pytest.approx(0, abs=1e-5)
    assert float(data.train.y.std(correction=0)) == pytest.approx(1, abs=1e-5)
    every = torch.cat([data.unscaled(part.y) for part in (data.train, data.valid, data.test)]).flatten()
    assert sorted(every.tolist()) == pytest.approx(sorted(table()["price"]), rel=1e-5)


def test_several_outputs():
    random = np.random.default_rng(0)
    data = open_data((random.normal(size=(50, 3)), random.normal(size=(50, 2))))
    assert data.signature.task == Part("regression", {"outputs": 2})
    assert data.train.y.shape[1] == 2
    refused("argmax", (random.normal(size=(50, 3)), np.eye(2, dtype=int)[np.arange(50) % 2]))


# --- as given, batches, functions -------------------------------------------------------------------------------------


def test_as_given_touches_nothing():
    x = torch.randn(40, 3, 8, 8)
    data = open_data((x, np.array([1, 3] * 20)), as_given=True)
    rows = torch.cat([part.x for part in (data.train, data.valid, data.test)])
    assert {float(row.sum()) for row in rows} == {float(row.sum()) for row in x}
    assert data.signature.task == Part("classification", {"classes": 4})  # class numbers are not closed up
    assert set(data.train.y.tolist()) == {1, 3}
    numbers = open_data((x, np.linspace(5, 9, 40)), as_given=True)
    assert numbers.target_scale is None
    assert float(numbers.train.y.min()) >= 5
    double = open_data((x.double(), np.linspace(5, 9, 40)), as_given=True)
    assert double.example().dtype == torch.float64
    many = open_data((x, torch.arange(40) // 2), as_given=True)
    assert many.signature.task == Part("classification", {"classes": 20})


def test_as_given_tokens_and_frames():
    tokens = torch.randint(0, 9, (30, 12), generator=torch.Generator().manual_seed(0))
    labelled = open_data((tokens, torch.arange(30) % 3), as_given=True)
    assert (labelled.signature.places, labelled.signature.channels) == ((12,), 0)
    assert labelled.signature.vocabulary == 9
    shifted = open_data((tokens, tokens.roll(-1, 1)), as_given=True)
    assert shifted.signature.task == Part("next_token", {"vocabulary": 9})
    frame = open_data(table().drop(columns="colour"), target="price", as_given=True)
    assert frame.example().shape == (1, 1)
    refused("is not a number", table(), target="price", as_given=True)


def test_four_arrays_keep_the_test_part():
    x, y = images(40, 5, 5)
    data = open_data((x[:30], y[:30], x[30:], y[30:]))
    assert torch.equal(data.test.x[..., 0], torch.from_numpy(x[30:]))
    assert len(data.valid) == 4  # one of each class
    frame = table()
    split = (frame[["size", "colour"]][:40], frame["price"][:40], frame[["size", "colour"]][40:], frame["price"][40:])
    assert len(open_data(split).test) == 20
    refused("one shape", (x[:30], y[:30], x[30:, :4], y[30:]))
    refused("X has 29 rows and y has 30", (x[:29], y[:30], x[30:], y[30:]))


def test_batches():
    x, y = torch.randn(40, 5), torch.arange(40) % 2
    pairs = [(x[start : start + 16], y[start : start + 16]) for start in range(0, 40, 16)]
    whole = open_data((x, y), as_given=True)
    for source in (pairs, tuple(pairs), iter(pairs), DataLoader(TensorDataset(x, y), 7), TensorDataset(x, y)):
        data = open_data(source)
        assert torch.equal(data.train.x, whole.train.x)
        assert data.encoder == Given()
    shuffled = open_data(DataLoader(TensorDataset(x, y), 7, shuffle=True))
    assert any("shuffles" in note for note in shuffled.notes)
    refused("batch 0: got Tensor.*unlabelled", DataLoader(x, 7))
    refused("batch 0: got list of 1", DataLoader(TensorDataset(x), 7))
    named = open_data([({"ids": each}, targets) for each, targets in pairs])
    assert torch.equal(named.train.x["ids"], whole.train.x)
    refused("batch 1: rows of x", [(x, y), (x[:, :2], y)])
    refused("there is none", iter([]))
    refused("cannot be opened", 3)


def test_function_of_a_file(tmp_path):
    (tmp_path / "beside_it.py").write_text("ROWS = 40\n")
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom beside_it import ROWS\nfrom shoal.data import open_data\n"
        "def pair():\n    return torch.randn(ROWS, 3), torch.arange(ROWS) % 2\n"
        "def four():\n    return (*pair(), *(part[:10] for part in pair()))\n"
        "def opened():\n    return open_data('digits')\n"
        "def broken():\n    return 1 / 0\n"
    )
    assert open_data(f"{path}:pair").encoder == Given()
    assert len(open_data(f"{path}:four").test) == 10
    assert open_data(f"{path}:opened").name == "digits"
    assert str(tmp_path) not in sys.path
    refused("did you mean 'pair'", f"{path}:pairs")
    refused("ZeroDivisionError", f"{path}:broken")
    refused("no such file", f"{tmp_path / 'none.py'}:pair")


# --- files ------------------------------------------------------------------------------------------------------------


def test_table_files_agree(tmp_path):
    frame = table()
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "semicolons.csv", index=False, sep=";")
    frame.to_parquet(tmp_path / "a.parquet")
    marks = {open_data(path, target="price").fingerprint for path in tmp_path.iterdir()}
    assert marks == {open_data(frame, target="price").fingerprint}
    assert open_data(str(tmp_path / "a.csv"), target="price").name == "a"


def test_npz_forms(tmp_path):
    x, y = images(40, 8, 8, 3)
    np.savez(tmp_path / "xy.npz", X=x, y=y)
    np.savez(tmp_path / "four.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    planes = x.transpose(3, 0, 1, 2).copy()
    planes[0] -= planes[1]
    planes[2] -= planes[1]
    delta = np.diff(np.diff(planes, axis=2, prepend=np.uint8(0)), axis=3, prepend=np.uint8(0))
    np.savez(tmp_path / "delta.npz", delta=delta, y=y)
    assert np.array_equal(from_delta(delta), x)
    assert open_data(tmp_path / "xy.npz").fingerprint == open_data(tmp_path / "delta.npz").fingerprint
    assert len(open_data(tmp_path / "four.npz").test) == 10
    np.savez(tmp_path / "odd.npz", a=x)
    refused("holds a; name the arrays", tmp_path / "odd.npz")
    np.savez(tmp_path / "pickled.npz", x=np.array([{}, []], dtype=object), y=y)
    refused("pickled objects, which are never loaded", tmp_path / "pickled.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "xy.npz").read_bytes()[:300])
    refused("cannot be read as an .npz|pickled", tmp_path / "broken.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    refused("cannot be read as an .npz", tmp_path / "empty.npz")


def test_text_windows(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(range(250)) * 4)
    data = open_data(path, length=16)
    assert data.signature == Signature((16,), 0, 256, Part("next_token", {"vocabulary": 256}))
    assert data.train.x.shape == (49, 16)
    assert torch.equal(data.train.x[:, 1:], data.train.y[:, :-1])
    assert torch.equal(data.train.x[1:, 0], data.train.y[:-1, -1])
    assert int(data.valid.x[0, 0]) == 800 % 250
    assert data.train.batch(slice(0, 2))[0].dtype == torch.int64
    assert open_data(path, length=16).fingerprint == data.fingerprint
    refused("too few", path, length=100)
    refused("at least 1", path, BadSetting, length=0)
    refused("does not fit text", path, BadSetting, task="regression")


def test_names(monkeypatch):
    data = open_data("digits")
    assert data.signature == Signature((8, 8), 1, None, Part("classification", {"classes": 10}))
    assert len(data.train) + len(data.valid) + len(data.test) == 1797
    assert int(data.train.x.max()) == 255
    assert open_data(data) is data
    assert isinstance(data, Dataset)
    assert "1797" not in repr(data)
    assert len(repr(data.train)) < 100
    refused("did you mean 'mnist'", "mnits")
    refused("leave target out", "digits", BadSetting, target="y")
    monkeypatch.setenv("SHOAL_DATA", os.devnull)
    refused("no such folder", "mnist")


def test_shoal_alone_imports_no_data():
    code = "import shoal, sys; sys.exit('shoal.data' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_refused_tables(tmp_path):
    frame = table()
    refused("no target given.*'size'", frame)
    refused("did you mean 'price'", frame, target="prise")
    refused("constant", frame.assign(y=1), target="y")
    refused("constant, 'a' in all", frame.assign(y="a"), target="y")
    refused("2 of 60 cells are missing", frame.assign(y=[None, None] + [1.5, 2.5] * 29), target="y")
    refused("3 of 60 values are infinite", frame.assign(y=[np.inf] * 3 + [1.5] * 57), target="y")
    refused(r"1 of \d+ values are infinite", frame.assign(size=[np.inf] + [1.5] * 59), target="price")
    refused("60 classes in 60 rows", frame.assign(y=[f"id{n}" for n in range(60)]), target="y")
    refused("holds dates", frame.assign(y=pd.date_range("2020", periods=60)), target="y")
    refused("9 rows are too few", frame.head(9), target="price")
    refused("no column to learn from", frame[["price"]], target="price")
    refused("no column to learn from.*constant: size", frame[["price"]].assign(size=1), target="price")
    refused("occur twice: size", frame.rename(columns={"colour": "size"}), target="price")
    refused("0 rows", frame.head(0), target="price")
    refused("too large", frame.assign(size=[1e308, -1e308] * 30), target="price")


def test_dropped_columns_are_noted():
    frame = table().assign(same=1, key=[f"id{n}" for n in range(60)])
    notes = " | ".join(open_data(frame, target="price").notes)
    assert "constant: same" in notes
    assert "like an identifier (33 levels in 33 rows): key" in notes


def test_refused_files(tmp_path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    refused("no such file", tmp_path / "none.csv", target="y")
    refused("is a folder", tmp_path)
    refused("is empty", write("empty.csv", ""), target="y")
    refused("0 rows", write("header.csv", "a,y\n"), target="y")
    refused("occur twice: a", write("twice.csv", "a,a,y\n1,2,3\n"), target="y")
    refused("cannot be read as a table", write("ragged.csv", "a,y\n1,2\n3,4,5\n"), target="y")
    refused("cannot be read as a table", write("latin.csv", b"a,y\n\xff\xfe,1\n"), target="y")
    refused("cannot be read as a table", write("not.csv.gz", "a,y\n1,2\n"), target="y")
    refused("cannot be read as a table", write("cut.csv.gz", gzip.compress(b"a,y\n" * 99)[:-12]), target="y")
    refused("cannot be read as .parquet", write("not.parquet", "a,y\n"), target="y")
    refused("files of this kind", write("a.xls", "a"))
    refused("leave target out", write("a.npz", "a"), BadSetting, target="y")


def test_refused_arrays():
    x, y = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 2
    refused("X has 40 rows and y has 39", (x, y[:39]))
    refused("'tall' is not a number", (np.array([[1, "tall"]] * 40, dtype=object), y))
    refused("2 of 40 cells are missing or NaN", (x, np.where(np.arange(40) < 2, np.nan, 1.5 + y)))
    refused("1 of 40 rows are NaN or infinite", (x, np.where(x[:, :2] == x[0, 0], np.nan, x[:, :2])))
    refused("output 1 is constant", (x, np.stack([x[:, 0], np.ones(40)], 1)))
    refused("9 rows are too few", (x[:9], y[:9]))
    refused("constant", (x, np.zeros(40)))
    refused("unequal shape", ([[1, 2], [3]] * 20, y))
    refused("complex", (x + 1j, y))
    refused("(5 axes|as_given)", (np.zeros((40, 2, 2, 2, 2)), y))
    refused("leave target out", (x, y), BadSetting, target="y")
    refused("at least 0", (x, y), BadSetting, seed=-1)
    refused("sparse", (torch.eye(40).to_sparse(), y))
    refused("holds no values", (np.zeros((40, 0, 5)), y))
    refused("rescale", (x, x[:, 0] * 1e300))
    refused("did you mean|no such file", "")
    picture = np.zeros((40, 6, 6), dtype=np.float32)
    picture[3, 2, 2:4] = np.nan
    refused("2 of 1440 values are not finite", (picture, y))
    refused("2 of 1440 values are not finite", (picture, y), as_given=True)


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "target", "task", "features"),
    [
        ("tab_adult.csv.gz", "income", "classification[classes=2]", (90, 120)),
        ("tab_diamonds.csv.gz", "price", "regression[outputs=1]", (26, 26)),
        ("tab_horse_colic.csv", "surgical_lesion", "classification[classes=2]", (40, 60)),
        ("tab_ames_housing.csv.gz", "SalePrice", "regression[outputs=1]", (200, 400)),
    ],
)
def test_real_tables(file, target, task, features):
    data = open_data(real(file), target=target)
    assert str(data.signature.task) == task
    assert features[0] <= data.signature.channels <= features[1]
    for part in (data.train, data.valid, data.test):
        assert torch.isfinite(part.x).all()
        assert part.x.abs().max() < 50


def test_real_cifar10():
    real("cifar10_train_a.npz")
    data = open_data("cifar10")
    assert [tuple(part.x.shape) for part in (data.train, data.valid, data.test)] == [
        (45000, 32, 32, 3),
        (5000, 32, 32, 3),
        (10000, 32, 32, 3),
    ]
    assert torch.bincount(data.test.y).tolist() == [1000] * 10
    assert torch.bincount(data.valid.y).tolist() == [500] * 10
    assert isinstance(data.encoder, Pixels)
    assert data.encoder.mean == pytest.approx((0.4914, 0.48216, 0.44653), abs=1e-3)
    assert data.encoder.std == pytest.approx((0.24703, 0.24348, 0.26159), abs=1e-3)
    assert data.classes is not None
    assert data.classes[8] == "ship"


def test_real_mnist_and_text():
    mnist = open_data("mnist") if real("mnist.npz") else None
    assert mnist is not None
    assert (len(mnist.train), len(mnist.test)) == (54000, 10000)
    text = open_data(real("tinyshakespeare.txt"), length=128)
    assert int(torch.cat([text.train.x.flatten(), text.test.x.flatten()]).unique().numel()) <= 65


def test_many_rows_hold_out_smaller_shares():
    parts, notes = cut(np.arange(20_000) % 2, 0)
    assert [len(parts.train), len(parts.valid), len(parts.test)] == [14_000, 3_000, 3_000]
    assert notes == ["split 70/15/15: 14000 train, 3000 validation, 3000 test rows"]
    parts, _ = cut(np.arange(20_000) % 2, 0, official=5_000)
    assert [len(parts.train), len(parts.valid), len(parts.test)] == [13_500, 1_500, 5_000]


def test_digits_test_part_is_the_same_for_every_seed():
    one, two = open_data("digits", seed=1), open_data("digits", seed=2)
    assert torch.equal(one.test.x, two.test.x)
    assert len(one.test) == 719
    assert not torch.equal(one.valid.x, two.valid.x)
