"""MNIST and Fashion-MNIST: tiny idx files of our own behind torchvision's loaders, and the real sets where
$DISTVAE_DATA has them."""

import errno
import gzip
import hashlib
import os
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest

from distvae.data import DataError, FashionMnist, Mnist
from distvae.trial import Trial

NAMES = [f"{s}-{k}-ubyte" for s in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
SETS = {"mnist": (Mnist, "MNIST"), "fashion_mnist": (FashionMnist, "FashionMNIST")}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache in a temporary home, and no $DISTVAE_DATA."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DISTVAE_DATA", raising=False)
    return tmp_path / "home" / ".cache" / "distvae"


def contents(n_train=40, n_test=10):
    """The four files' bytes: image i is filled with i, labels go round the classes."""
    out = {}
    for split, n in (("train", n_train), ("t10k", n_test)):
        x = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 28, 28))
        out[f"{split}-images-idx3-ubyte"] = struct.pack(">IIII", 2051, n, 28, 28) + x.tobytes()
        out[f"{split}-labels-idx1-ubyte"] = struct.pack(">II", 2049, n) + (np.arange(n) % 10).astype(np.uint8).tobytes()
    return out


@pytest.fixture
def tiny(tmp_path, monkeypatch, cache):
    """A root of four tiny .gz files, whose md5 sums torchvision believes."""
    import torchvision.datasets

    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, data in contents().items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
    sums = [(f"{n}.gz", hashlib.md5((raw / f"{n}.gz").read_bytes()).hexdigest()) for n in NAMES]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    return tmp_path / "root"


def unpack(root):
    for f in (root / "MNIST" / "raw").glob("*.gz"):
        f.with_suffix("").write_bytes(gzip.decompress(f.read_bytes()))
        f.unlink()


def test_packed_files_are_unpacked_into_the_cache_and_never_beside_the_originals(tiny, cache):
    before = sorted(p.name for p in tiny.rglob("*"))
    data = Mnist(root=str(tiny), valid=10).load()
    assert sorted(p.name for p in tiny.rglob("*")) == before
    assert sorted(p.name for p in (cache / "MNIST" / "raw").iterdir()) == sorted(NAMES)  # no temporary left
    assert data.x_shape == (1, 28, 28) and data.train.x.dtype == np.uint8
    assert [len(s) for s in data.splits().values()] == [30, 10, 10]
    for s in (data.train, data.valid):
        np.testing.assert_array_equal(s.x[:, 0, 3, 4], s.index)  # image i is filled with i: ids follow the file
        np.testing.assert_array_equal(s.y, s.index % 10)
    assert np.bincount(data.valid.y).tolist() == [1] * 10
    np.testing.assert_array_equal(data.test.index, np.arange(40, 50))
    np.testing.assert_array_equal(data.test.x[:, 0, 0, 0], np.arange(10))
    np.testing.assert_array_equal(data.test.pixels(slice(5, 6)), np.full((1, 1, 28, 28), 5 / 255, np.float32))


def test_unpacked_files_are_read_where_they_are(tiny, cache):
    unpack(tiny)
    assert len(Mnist(root=str(tiny), valid=0).load().train) == 40
    assert not cache.exists()


def test_no_valid_split_and_none_left_to_train_on(tiny):
    data = Mnist(root=str(tiny), valid=0).load()
    assert list(data.splits()) == ["train", "test"] and len(data.valid) == 0
    with pytest.raises(DataError, match=r"data\.valid: 40 of 40 .* lower it"):
        Mnist(root=str(tiny), valid=40).load()


def test_the_held_out_images_do_not_depend_on_the_seed(tiny):
    a, b = (Mnist(root=str(tiny), valid=7, seed=s).load().valid.index for s in (0, 1))
    np.testing.assert_array_equal(a, b)


def test_the_default_root(tiny, cache, monkeypatch):
    base = tiny.parent / "all"
    base.mkdir()
    (base / "mnist").symlink_to(tiny)
    monkeypatch.setenv("DISTVAE_DATA", str(base))
    assert len(Mnist(valid=0).load().train) == 40
    monkeypatch.delenv("DISTVAE_DATA")
    shutil.rmtree(tiny)
    assert len(Mnist(valid=0).load().train) == 40  # the cache, filled by the first
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))
    with pytest.raises(DataError, match=f"{base}/distvae/MNIST/raw: .*not set, so the user's cache.*download: true"):
        Mnist().load()


def test_a_missing_folder_and_a_missing_file_are_named_with_the_remedy(tiny):
    with pytest.raises(
        DataError, match=r"nowhere/MNIST/raw: train-images.*data\.root.*holds MNIST/raw.*download: true"
    ):
        Mnist(root=str(tiny / "nowhere")).load()
    (tiny / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"MNIST/raw: t10k-labels-idx1-ubyte.gz not found"):
        Mnist(root=str(tiny)).load()


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:30] + bytes([b[30] ^ 1]) + b[31:]], ids=["cut", "flip"]
)
def test_a_truncated_or_altered_archive_is_refused_even_when_the_cache_is_full(tiny, cache, damage, cached):
    if cached:
        Mnist(root=str(tiny), valid=0).load()
    f = tiny / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    f.write_bytes(damage(f.read_bytes()))
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte\.gz: md5 .* expected .* truncated or altered.*download"
    ):
        Mnist(root=str(tiny), valid=0).load()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train-images-idx3-ubyte", b"<html>not found</html>", "not an idx file .* begins 3c68746d, expected 00000803"),
        ("train-images-idx3-ubyte", b"", "not an idx file"),
        ("train-images-idx3-ubyte", struct.pack(">IIII", 2051, 1, 32, 32) + bytes(1024), r"shape \(32, 32\), expected"),
        ("train-images-idx3-ubyte", contents()["train-images-idx3-ubyte"][:-1], "31375 bytes, but .* announces 31376"),
        ("t10k-labels-idx1-ubyte", contents()["t10k-labels-idx1-ubyte"] + b"x", "19 bytes, but .* announces 18"),
        ("t10k-labels-idx1-ubyte", contents(n_test=9)["t10k-labels-idx1-ubyte"], "the t10k files disagree"),
    ],
)
def test_a_bad_header_or_length_is_refused(tiny, name, data, message):
    unpack(tiny)
    (tiny / "MNIST" / "raw" / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as e:
        Mnist(root=str(tiny), valid=0).load()
    assert "eplace" in str(e.value)


def test_a_cache_that_cannot_be_written_says_what_to_set(tiny, cache, monkeypatch):
    (tiny / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny / "file"))
    with pytest.raises(DataError, match=r"Set XDG_CACHE_HOME"):
        Mnist(root=str(tiny), valid=0).load()


def test_a_full_disk_leaves_no_half_a_file(tiny, cache, monkeypatch):
    def full(source, target):
        target.write(source.read(9))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=r"MNIST/raw: No space left on device\. Set XDG_CACHE_HOME"):
        Mnist(root=str(tiny), valid=0).load()
    assert list((cache / "MNIST" / "raw").iterdir()) == []


def test_where_the_files_are_is_not_in_the_trial_key():
    def key(**kw):
        return Trial(data=Mnist(**kw)).key

    assert key(root="elsewhere", download=True) == key()
    assert len({key(), key(valid=0), key(seed=1), Trial(data=FashionMnist()).key}) == 4


def test_a_pickle_left_by_an_old_torchvision_is_not_opened(tiny):
    unpack(tiny)
    old = tiny / "MNIST" / "processed"
    old.mkdir()
    for name in ("training.pt", "test.pt"):
        (old / name).write_bytes(b"cos\nsystem\n")
    assert len(Mnist(root=str(tiny), valid=0).load().train) == 40


@pytest.fixture
def mirror(tiny, monkeypatch):
    """A loopback server of the tiny archives, as torchvision's only mirror."""
    import torchvision.datasets

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tiny / "MNIST" / "raw"))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield
        server.shutdown()


def test_download_goes_to_the_cache_and_only_for_what_the_root_lacks(tiny, cache, mirror):
    elsewhere = tiny.parent / "elsewhere"
    data = Mnist(root=str(elsewhere), download=True, valid=0).load()
    assert len(data.train) == 40 and not elsewhere.exists()
    assert sorted(p.name for p in cache.iterdir()) == ["MNIST"]  # no temporary folder left
    shutil.rmtree(tiny)
    assert len(Mnist(root=str(elsewhere), download=True, valid=0).load().train) == 40  # no second download


def test_a_failed_download_says_where_to_put_the_files(tiny, cache, monkeypatch):
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])  # a refused connection leaks torchvision's socket
    with pytest.raises(DataError, match=r"download failed: .*Fetch the four files yourself and set data\.root"):
        Mnist(root=str(tiny / "elsewhere"), download=True).load()
    assert list(cache.iterdir()) == []


def test_many_readers_at_once_unpack_one_whole_copy(tiny, cache):
    start = Barrier(8)

    def read(_):
        start.wait()
        return Mnist(root=str(tiny), valid=0).load().train.x

    with ThreadPoolExecutor(8) as pool:
        first, *rest = pool.map(read, range(8))
    for x in rest:
        np.testing.assert_array_equal(x, first)
    assert sorted(p.name for p in (cache / "MNIST" / "raw").iterdir()) == sorted(NAMES)


# --- the real sets ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory):
    """Shared by the real sets' tests, so that each set is unpacked once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.skipif("DISTVAE_DATA" not in os.environ, reason="set DISTVAE_DATA to a folder with mnist/, fashion_mnist/")
@pytest.mark.parametrize("kind", SETS)
def test_the_real_set_from_a_read_only_folder_of_archives(kind, tmp_path, real_cache, monkeypatch):
    part, loader = SETS[kind]
    original = Path(os.environ["DISTVAE_DATA"]) / kind / loader / "raw"
    raw = tmp_path / loader / "raw"
    raw.mkdir(parents=True)
    for name in NAMES:
        shutil.copy(original / f"{name}.gz", raw)
    for p in (*raw.iterdir(), raw, raw.parent, tmp_path):
        p.chmod(0o555 if p.is_dir() else 0o444)
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_cache))
    try:
        data = part(root=str(tmp_path)).load()
        assert sorted(p.name for p in raw.iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    finally:
        for p in (tmp_path, raw.parent, raw):
            p.chmod(0o755)

    assert [len(s) for s in data.splits().values()] == [55_000, 5_000, 10_000]
    assert all(s.x.dtype == np.uint8 and s.x.shape[1:] == (1, 28, 28) for s in data.splits().values())
    index = np.concatenate([s.index for s in data.splits().values()])
    np.testing.assert_array_equal(np.sort(index), np.arange(70_000))
    labels = gzip.decompress((original / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    pixels = gzip.decompress((original / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    for s in (data.train, data.valid):
        np.testing.assert_array_equal(s.y, np.frombuffer(labels, np.uint8)[s.index])
        np.testing.assert_array_equal(s.x.reshape(-1, 784), np.frombuffer(pixels, np.uint8).reshape(-1, 784)[s.index])
    share = np.bincount(np.frombuffer(labels, np.uint8)) / 12
    assert np.abs(np.bincount(data.valid.y) - share).max() < 1


@pytest.mark.skipif("DISTVAE_DATA" not in os.environ, reason="set DISTVAE_DATA to a folder with mnist/, fashion_mnist/")
def test_real_mnist_has_its_known_moments_and_pinned_split(real_cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_cache))
    data = Mnist().load()
    x = np.concatenate([data.train.x, data.valid.x]) / 255.0
    assert (round(x.mean(), 4), round(x.std(), 4)) == (0.1307, 0.3081)  # as everyone normalises by
    assert np.bincount(data.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert hashlib.sha256(data.valid.index.astype("<i8").tobytes()).hexdigest()[:16] == "84581aae15af0e23"
