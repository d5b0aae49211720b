"""Fetching, against a server on this machine: whole files, wrong, short and absent ones, and named data by it."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import socket
import tarfile
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from shoal.core.errors import BadData, BadSetting
from shoal.data.fetch import fetch
from shoal.data.named import Address, open_named


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path; names in `short` lose their last bytes; `asked` keeps what was asked for."""

    files: dict[str, bytes]
    short: set[str]
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path.strip("/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:-7] if self.path.strip("/") in self.server.short else content)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.files, made.short, made.asked = {}, set(), []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def address(server: Server, name: str, algorithm: str = "sha256") -> Address:
    content = server.files[name]
    return Address(url(server, name), f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")


def url(server: Server, name: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{name}"


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_good_file_is_fetched_once(server, tmp_path, algorithm):
    server.files["a.bin"] = bytes(range(256)) * 9000  # more than one piece
    where = address(server, "a.bin", algorithm)
    place = fetch(where.url, where.checksum, tmp_path / "new" / "folder")
    assert place.read_bytes() == server.files["a.bin"]
    assert fetch(where.url, where.checksum, tmp_path / "new" / "folder") == place
    assert server.asked == ["/a.bin"]
    assert [item.name for item in place.parent.iterdir()] == ["a.bin"]


def test_damaged_file_in_the_cache_is_fetched_again(server, tmp_path):
    server.files["a.bin"] = b"whole"
    (tmp_path / "a.bin").write_bytes(b"who")
    where = address(server, "a.bin")
    assert fetch(where.url, where.checksum, tmp_path).read_bytes() == b"whole"


def refused(match: str, tmp_path, *args: object, **settings: object) -> None:
    with pytest.raises(BadData, match=match) as caught:
        fetch(*args, tmp_path, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    server.files["a.bin"] = b"something else"
    refused("checksum", tmp_path, url(server, "a.bin"), "md5:" + "0" * 32)


def test_short_file_leaves_nothing(server, tmp_path):
    server.files["a.bin"] = b"x" * 100
    server.short.add("a.bin")
    where = address(server, "a.bin")
    refused("cut short, 93 of 100|IncompleteRead", tmp_path, where.url, where.checksum)


def test_no_such_file(server, tmp_path):
    refused("404.*put the file at", tmp_path, url(server, "none.bin"), "md5:" + "0" * 32)


def test_no_server_names_the_way_out(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"http://127.0.0.1:{port}/a.bin"
    refused("go online.*SHOAL_DATA", tmp_path, where, "md5:" + "0" * 32, hint=", or set SHOAL_DATA")


def test_no_answer_ends(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"
        refused("timed out", tmp_path, where, "md5:" + "0" * 32, timeout=0.2)


def test_only_the_web_and_known_checksums(tmp_path):
    with pytest.raises(BadSetting, match="http"):
        fetch("file:///etc/hosts", "md5:" + "0" * 32, tmp_path)
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(BadSetting, match="checksum"):
        fetch("http://127.0.0.1/a", "crc:1", tmp_path)


def idx(array: np.ndarray) -> bytes:
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def serve_mnist(server: Server) -> tuple[Address, ...]:
    random = np.random.default_rng(0)
    for part, rows in (("train", 60), ("t10k", 20)):
        server.files[f"{part}-images.gz"] = idx(random.integers(0, 256, (rows, 6, 6)))
        server.files[f"{part}-labels.gz"] = idx(np.arange(rows) % 10)
    return tuple(address(server, name, "md5") for name in server.files)


def test_mnist_from_fetched_files(server, tmp_path):
    addresses = {"mnist": serve_mnist(server)}
    (tmp_path / "empty").mkdir()
    data = open_named("mnist", seed=0, folder=tmp_path / "empty", cache=tmp_path, addresses=addresses)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [50, 10, 20]
    assert (data.signature.places, data.signature.channels) == ((6, 6), 1)
    assert data.test.y.tolist() == [row % 10 for row in range(20)]
    again = open_named("mnist", seed=0, folder=tmp_path / "empty", cache=tmp_path, addresses=addresses)
    assert again.fingerprint == data.fingerprint
    assert len(server.asked) == 4


def test_file_that_is_no_idx_file(server, tmp_path):
    serve_mnist(server)
    server.files["train-images.gz"] = gzip.compress(b"\x00\x00\x08\x03 too short")
    addresses = {"mnist": tuple(address(server, name) for name in server.files)}
    with pytest.raises(BadData, match="not an idx file"):
        open_named("mnist", seed=0, folder=tmp_path, cache=tmp_path, addresses=addresses)


def test_cifar10_from_fetched_archive(server, tmp_path):
    random = np.random.default_rng(0)
    blocks = {}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
            rows = random.integers(0, 256, (20, 1 + 3 * 32 * 32), dtype=np.uint8)
            rows[:, 0] = np.arange(20) % 10
            blocks[name] = rows
            item = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            item.size = rows.size
            archive.addfile(item, io.BytesIO(rows.tobytes()))
    server.files["cifar.tar.gz"] = packed.getvalue()
    addresses = {"cifar10": (address(server, "cifar.tar.gz"),)}
    data = open_named("cifar10", seed=0, folder=tmp_path, cache=tmp_path, addresses=addresses)
    assert data.test.x.shape == (20, 32, 32, 3)
    assert data.classes is not None
    assert data.classes[3] == "cat"
    green = blocks["test_batch.bin"][4, 1 + 1024 : 1 + 2048].reshape(32, 32)
    assert np.array_equal(data.test.x[4, :, :, 1].numpy(), green)


def test_archive_without_its_files(server, tmp_path):
    packed = io.BytesIO()
    tarfile.open(fileobj=packed, mode="w:gz").close()
    server.files["cifar.tar.gz"] = packed.getvalue()
    addresses = {"cifar10": (address(server, "cifar.tar.gz"),)}
    with pytest.raises(BadData, match="not the binary CIFAR-10 archive"):
        open_named("cifar10", seed=0, folder=tmp_path, cache=tmp_path, addresses=addresses)
