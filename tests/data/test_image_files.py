"""Folders of images: decoded as torchvision's transforms do, once, into the user's cache; every bad file named."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from distvae.data import DataError, Images
from distvae.data import decode as decode_module
from distvae.data.decode import decoded
from distvae.training.loop import Runner
from distvae.trial import Train, Trial

RNG = np.random.default_rng(0)
REAL = os.environ.get("DISTVAE_DATA", "")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTVAE_DATA", raising=False)
    return tmp_path / "cache" / "distvae" / "decoded"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def save(path, width=12, height=9, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((width, height), 90).convert(mode).save(path)
    return path


def part(root, **kw):
    return Images(**{"name": "mine", "root": str(root), "size": 6, **kw})


def by_torchvision(path, size, crop, mode):
    """`[C, size, size]` by the transforms of the literature."""
    image = Compose([CenterCrop(crop), Resize((size, size))])(Image.open(path).convert(mode))
    return np.asarray(image).reshape(size, size, -1).transpose(2, 0, 1)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize(("width", "height", "crop"), [(12, 12, None), (13, 30, None), (31, 20, None), (31, 22, 18)])
def test_pixels_are_those_of_torchvisions_transforms(root, channels, mode, width, height, crop):
    path = root / "a.png"
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    x = decoded(root, ["a.png"], size=8, channels=channels, crop=crop)
    np.testing.assert_array_equal(x[0], by_torchvision(path, 8, crop or min(width, height), mode))


def test_sixteen_images_in_order_through_any_number_of_chunks(root, monkeypatch):
    for i in range(16):
        Image.new("L", (5, 5), i).save(root / f"{i:02}.png")
    monkeypatch.setattr(decode_module, "_CHUNK", 3)
    data = part(root, channels=1).load()
    for s in data.splits().values():
        np.testing.assert_array_equal(s.x[:, 0, 2, 3], s.index)
    assert [len(s) for s in data.splits().values()] == [12, 2, 2] and data.x_shape == (1, 6, 6)
    assert data.train.y is None and part(root).classes is None


def test_every_usual_format_and_mode_reads_as_grey_and_as_colour(root):
    for name, mode in (
        ("a.png", "1"), ("b.png", "P"), ("c.png", "RGBA"), ("d.JPG", "L"), ("e.jpeg", "CMYK"), ("f.bmp", "RGB"),
        ("g.gif", "P"), ("h.webp", "RGB"), ("i.tiff", "LA"), ("j.ppm", "RGB"), ("k.pgm", "L"),
    ):  # fmt: skip
        save(root / name, mode=mode)
    for channels in (1, 3):
        data = part(root, channels=channels, valid=0.0).load()
        assert len(data.train) + len(data.test) == 11 and data.x_shape == (channels, 6, 6)


def test_subfolders_are_classes_only_if_every_image_is_in_one(root):
    for i in range(9):
        save(root / "bca"[i % 3] / "deeper" / f"{i}.png")
    (root / "empty").mkdir()
    (root / "a" / "notes.txt").write_text("not an image")
    save(root / ".hidden" / "x.png")
    save(root / "a" / "._x.png")
    p = part(root, valid=0.3, test=0.3)
    data = p.load()
    assert p.classes == 3 and [len(s) for s in data.splits().values()] == [3, 3, 3]
    by_id = {i: y for s in data.splits().values() for i, y in zip(s.index.tolist(), s.y.tolist(), strict=True)}
    assert [by_id[i] for i in range(9)] == [0] * 3 + [1] * 3 + [2] * 3  # files in order of path: a, b, c
    save(root / "outside.png")
    assert part(root).load().train.y is None and part(root).classes is None


def test_the_split_is_by_address(root):
    for i in range(20):
        save(root / f"{i:02}.png")
    a, b = part(root, seed=0).load(), part(root, seed=1, size=4).load()
    np.testing.assert_array_equal(a.test.index, b.test.index)
    ids = np.concatenate([s.index for s in a.splits().values()])
    assert sorted(ids) == list(range(20))


def test_decoded_once_mapped_and_writable_for_torch(root, cache, monkeypatch):
    for i in range(4):
        save(root / f"{i}.png")
    names = [f"{i}.png" for i in range(4)]
    first = decoded(root, names, size=6, channels=3)
    monkeypatch.setattr(decode_module, "_one", None)  # a second decoding would call it
    second = decoded(root, names, size=6, channels=3)
    np.testing.assert_array_equal(first, second)
    assert second.flags.writeable and isinstance(second.base, np.memmap) and len(list(cache.iterdir())) == 1
    second[:] = 0  # what a process writes stays its own
    np.testing.assert_array_equal(decoded(root, names, size=6, channels=3), first)


def test_a_changed_file_another_size_crop_or_order_are_decoded_anew(root, cache):
    a, b = save(root / "a.png"), save(root / "b.png")
    names = ["a.png", "b.png"]
    x = decoded(root, names, size=6, channels=3).copy()
    for again in (
        {"names": names[::-1], "size": 6, "channels": 3},
        {"names": names, "size": 5, "channels": 3},
        {"names": names, "size": 6, "channels": 1},
        {"names": names, "size": 6, "channels": 3, "crop": 7},
    ):
        decoded(root, **again)
    assert len(list(cache.iterdir())) == 5
    os.replace(b, a)
    save(root / "b.png")
    assert not np.array_equal(decoded(root, names, size=6, channels=3)[0], x[0])


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"<html>"], ids=["cut", "empty", "other"]
)
def test_a_damaged_cache_is_made_anew(root, cache, damage):
    save(root / "a.png")
    first = decoded(root, ["a.png"], size=6, channels=3).copy()
    (file,) = cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(decoded(root, ["a.png"], size=6, channels=3), first)


def test_many_workers_at_once_see_one_whole_copy(root, cache):
    for i in range(30):
        save(root / f"{i}.png")
    start = Barrier(6)

    def read(_):
        start.wait()
        return decoded(root, [f"{i}.png" for i in range(30)], size=6, channels=3)

    with ThreadPoolExecutor(6) as pool:
        first, *rest = pool.map(read, range(6))
    for x in rest:
        np.testing.assert_array_equal(x, first)
    assert len(list(cache.iterdir())) == 1  # no temporary left


def cut(path):
    save(path, 200, 200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def deep(path):
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut, "cannot be read as an image"),
        (lambda p: p.write_text("<html>"), "cannot be read as an image"),
        (lambda p: p.write_bytes(b""), "cannot be read as an image"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40)), "cannot be read as an image"),
        (lambda p: p.symlink_to(p.parent / "gone"), "No such file"),
        (deep, "more than 8 bits a channel"),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_cached(root, cache, make, message):
    for i in range(3):
        save(root / f"{i}.png")
    make(root / "bad.png")
    with pytest.raises(DataError, match=f"root/bad.png: .*{message}"):
        part(root).load()
    assert not cache.exists() or not list(cache.iterdir())


def test_a_crop_larger_than_the_image_is_refused(root):
    save(root / "a.png", 12, 9)
    with pytest.raises(DataError, match=r"a.png: is 12x9, too small for a crop of 10"):
        decoded(root, ["a.png"], size=4, channels=3, crop=10)


def test_no_folder_no_images_and_no_cache_say_what_to_set(root, monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"gone: not a folder \(data.root: .*gone\). Set data.root to a folder of"):
        part(root / "gone").load()
    with pytest.raises(DataError, match=r"root: no images"):
        part(root).load()
    for i in range(3):
        save(root / f"{i}.png")
    with pytest.raises(DataError, match=r"data.valid and data.test: 1 and 2 of 3"):
        part(root, valid=0.4, test=0.6).load()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="Set XDG_CACHE_HOME"):
        part(root).load()


def test_the_default_folder_is_the_name(root, monkeypatch):
    for i in range(5):
        save(root / "mine" / f"{i}.png")
    monkeypatch.setenv("DISTVAE_DATA", str(root))
    assert len(Images(name="mine", size=4, valid=0.0, test=0.0).load().train) == 5


@pytest.mark.skipif(not REAL, reason="set DISTVAE_DATA to a folder with textures/")
def test_the_real_textures():
    root = Path(REAL) / "textures"
    data = Images(name="textures", root=str(root), size=64, channels=1, valid=0.0, test=0.0).load()
    for x, name in zip(data.train.x, ("brick", "grass", "gravel"), strict=True):
        np.testing.assert_array_equal(x, by_torchvision(root / f"{name}.png", 64, 512, "L"))


def test_a_trial_trains_on_the_mapped_images(root):
    for i in range(20):
        save(root / f"{i:02}.png")
    trial = Trial(data=part(root), train=Train(epochs=1, batch_size=8))
    report = Runner(trial).advance()
    assert report.status == "finished" and [r["split"] for r in report.rows] == ["train", "valid", "test"]
    assert all(np.isfinite(r["distortion_mse"]) for r in report.rows)
