"""The `npz` part, and the reading of arrays that the packed sets share: layouts, splits, values, and every way a file
can be wrong."""

import io
import zipfile

import numpy as np
import pytest

from distvae.data import BinarizedMnist, Cifar10, DataError, Dsprites, Npz, Omniglot

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


class Trap:
    """Unpickling one fails the test."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.fixture
def save(tmp_path):
    def write(name="a.npz", **arrays):
        np.savez_compressed(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


def part(path, **kw):
    return Npz(**{"name": "mine", "path": path, **kw})


def whole(data):
    """Every example in the order of ids."""
    splits = data.splits().values()
    order = np.argsort(np.concatenate([s.index for s in splits]))
    return np.concatenate([s.x for s in splits])[order]


@pytest.mark.parametrize(
    ("stored", "layout", "expected"),
    [
        (BYTES, "auto", BYTES.transpose(0, 3, 1, 2)),
        (BYTES, "nhwc", BYTES.transpose(0, 3, 1, 2)),
        (BYTES, "nchw", BYTES),
        (BYTES.transpose(0, 3, 1, 2), "auto", BYTES.transpose(0, 3, 1, 2)),
        (np.asfortranarray(BYTES), "auto", BYTES.transpose(0, 3, 1, 2)),
        (BYTES[..., 0], "auto", BYTES[:, None, :, :, 0]),
        (BYTES[..., 0], "nhw", BYTES[:, None, :, :, 0]),
        (BYTES[..., :1], "auto", BYTES[:, None, :, :, 0]),
        (BYTES[:, None, :, :, 0], "auto", BYTES[:, None, :, :, 0]),
        (BYTES[..., :2], "nhwc", BYTES[..., :2].transpose(0, 3, 1, 2)),
    ],
)
def test_every_layout_becomes_channels_first_and_its_shape_is_known_before(save, stored, layout, expected):
    p = part(save(images=stored), layout=layout)
    data = p.load()
    assert p.shape == data.x_shape == expected.shape[1:]
    np.testing.assert_array_equal(whole(data), expected)
    assert all(s.x.flags.c_contiguous for s in data.splits().values())


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((4, 3, 5, 3), "auto", "both the second and the last axis could be 1 or 3 channels. Set data.layout"),
        ((4, 5, 5, 2), "auto", "neither the second nor the last axis"),
        ((4, 5), "auto", r"shape \[4, 5\], expected images \[N, H, W\]"),
        ((4, 5, 5), "nchw", r"shape \[4, 5, 5\], expected .*layout: nchw"),
        ((4, 5, 5, 3), "nhw", "layout: nhw"),
        ((0, 5, 5), "auto", r"no images: shape \[0, 5, 5\]"),
    ],
)
def test_a_layout_that_cannot_be_told_is_refused(save, shape, layout, message):
    p = part(save(images=np.full(shape, 200, np.uint8)), layout=layout)
    with pytest.raises(DataError, match=f"a.npz: images has .*{message}"):
        p.load()


def test_splits_by_address_by_an_array_and_by_keys(save):
    path = save(images=BYTES, y=LABELS, fold=np.arange(40) % 3, other=BYTES[:8, ::-1], y_other=LABELS[:8])
    data = part(path, y="y", valid=0.1, test=0.25).load()
    assert [len(s) for s in data.splits().values()] == [26, 4, 10]
    np.testing.assert_array_equal(np.sort(np.concatenate([s.index for s in data.splits().values()])), np.arange(40))
    again = part(path, valid=0.1, test=0.25, seed=9).load()
    np.testing.assert_array_equal(again.test.index, data.test.index)
    for s in data.splits().values():
        np.testing.assert_array_equal(s.y, s.index % 4)

    data = part(path, y="y", split="fold").load()
    for code, s in enumerate(data.splits().values()):
        np.testing.assert_array_equal(s.index, np.arange(code, 40, 3))

    data = part(path, y="y", x_test="other", y_test="y_other", valid=0.5).load()
    assert [len(s) for s in data.splits().values()] == [20, 20, 8]
    np.testing.assert_array_equal(data.test.index, 40 + np.arange(8))
    np.testing.assert_array_equal(data.test.x, BYTES[:8, ::-1].transpose(0, 3, 1, 2))
    data = part(path, x_valid="other", valid=0.5, test=0.0).load()
    assert [len(s) for s in data.splits().values()] == [40, 8] and list(data.splits()) == ["train", "valid"]


def test_classes_are_known_before(save):
    path = save(images=BYTES, y=LABELS, x2=BYTES, y2=LABELS + 3)
    assert part(path).classes is None and part(path, y="y").classes == 4
    assert part(path, y="y", x_test="x2", y_test="y2").classes == 7


def test_floats_binary_and_bytes_are_told_apart_by_levels(save):
    floats = RNG.random((20, 4, 4))
    data = part(save(images=floats), levels=None).load()
    assert data.train.x.dtype == np.float32
    np.testing.assert_array_equal(whole(data)[:, 0], floats.astype(np.float32))
    bits = floats > 0.5
    for stored in (bits, bits.astype(np.uint8), bits * np.uint8(255), bits.astype(np.float32)):
        data = part(save(images=stored), levels=2).load()
        np.testing.assert_array_equal(whole(data)[:, 0], bits * 255)
        np.testing.assert_array_equal(np.unique(data.train.pixels(slice(None))), [0.0, 1.0])


@pytest.mark.parametrize(
    ("values", "levels", "message"),
    [
        (np.full((5, 4, 4), 0.5), 256, r"float64, and data.levels: 256. Did you mean data.levels: null"),
        (np.full((5, 4, 4), True), 256, "Did you mean data.levels: 2"),
        (np.full((5, 4, 4), 7, np.uint8), None, "Did you mean data.levels: 256"),
        (np.ones((5, 4, 4), np.uint8), 256, "no value above 1, of 255. Is it binary"),
        (np.full((5, 4, 4), 1.5), None, r"goes from 1.5 to 1.5, expected floats in \[0, 1\]"),
        (np.full((5, 4, 4), np.nan), None, "goes from nan"),
        (np.full((5, 4, 4), -0.1), None, "goes from -0.1"),
        (np.full((5, 4, 4), 2, np.uint8), 2, "values beside 0 and 255"),
        (np.full((5, 4, 4), 0.5), 2, "values beside 0 and 1"),
        (np.full((5, 4, 4), 5), 256, "int64, expected uint8, bool, float16, float32 or float64"),
        (np.full((5, 4, 4), "x"), 256, "<U1, expected uint8"),
    ],
)
def test_values_that_are_not_what_levels_says_are_refused(save, values, levels, message):
    with pytest.raises(DataError, match=f"a.npz: images .*{message}"):
        part(save(images=values), levels=levels).load()


@pytest.mark.parametrize(
    ("arrays", "kw", "message"),
    [
        ({}, {"x": "pictures"}, r"no array 'pictures' \(it has images\)"),
        ({"y": LABELS[:39]}, {"y": "y"}, r"y has shape \[39\], expected \[40\]"),
        ({"y": LABELS - 1}, {"y": "y"}, "y has the label -1"),
        ({"y": LABELS * 0.5}, {"y": "y"}, "y is float64, expected uint8"),
        ({"s": LABELS}, {"split": "s"}, r"s must be 0 \(train\), 1 \(valid\) or 2 \(test\)"),
        ({"s": LABELS % 2 + 1}, {"split": "s"}, "s must be .*with some of 0"),
        ({"t": BYTES[:, :4]}, {"x_test": "t"}, r"the splits' images have different shapes: \[3, 6, 5\], \[3, 4, 5\]"),
        ({"y": np.array([Trap()] * 40, dtype=object)}, {"y": "y"}, "y is pickled, and nothing here unpickles"),
    ],
)
def test_keys_that_do_not_fit_are_refused_and_pickles_never_opened(save, arrays, kw, message):
    p = part(save(images=BYTES, **arrays), **kw)
    with pytest.raises(DataError, match=f"a.npz: {message}"):
        p.load()


def test_a_pickled_image_array_is_not_opened(save):
    p = part(save(images=np.array([Trap()], dtype=object)))
    with pytest.raises(DataError, match="nothing here unpickles"):
        p.load()
    assert p.shape is None


def raw_npz(path, **members):
    with zipfile.ZipFile(path, "w") as z:
        for key, data in members.items():
            z.writestr(f"{key}.npy", data)
    return str(path)


def npy(array):
    f = io.BytesIO()
    np.save(f, array)
    return f.getvalue()


def test_a_damaged_file_is_named(tmp_path, save):
    path = tmp_path / "a.npz"
    good = npy(BYTES)
    lying = good.replace(b"(40, 6, 5, 3)", b"(99, 6, 5, 3)")
    huge = good.replace(b"(40, 6, 5, 3), }   ", b"(9**40, 6, 5, 3)")  # not a number to the header's parser
    for member, message in (
        (good[:-1], "3727 bytes, but its header announces 3728"),
        (lying, "its header announces"),
        (huge, "cannot be read"),
        (good[:20], "cannot be read"),
        (b"", "cannot be read"),
        (b"<html>", "cannot be read"),
    ):
        with pytest.raises(DataError, match=f"a.npz: images .*{message}"):
            part(raw_npz(path, images=member)).load()
        assert part(str(path), layout="nhwc").shape is None
    whole_file = path.with_name("b.npz")
    save("b.npz", images=BYTES)
    bits = bytearray(whole_file.read_bytes())
    path.write_bytes(bits[: len(bits) // 2])
    with pytest.raises(DataError, match=r"a.npz: not an .npz file.*Is it whole"):
        part(str(path)).load()
    bits[len(bits) // 2] ^= 0xFF
    path.write_bytes(bits)
    with pytest.raises(DataError, match=r"a.npz: images cannot be read"):
        part(str(path)).load()


def test_the_default_path_is_the_name_and_a_missing_file_says_so(tmp_path, monkeypatch, save):
    monkeypatch.setenv("DISTVAE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"mine.npz: not found \(data.path: null, so \$DISTVAE_DATA\). Set data.path"):
        Npz(name="mine").load()
    assert Npz(name="mine").shape is None
    save("mine.npz", images=BYTES)
    assert Npz(name="mine").load().name == "mine" and Npz(name="mine").shape == (3, 6, 5)


# --- the packed sets, in small ----------------------------------------------------------------------------------------


def test_the_packed_sets_read_their_formats(save, tmp_path):
    bits = RNG.integers(0, 2, (9, 784), dtype=np.uint8)
    save("binarized_mnist.npz", train=bits, valid=bits[:2], test=np.asfortranarray(bits[:3]))
    data = BinarizedMnist(root=str(tmp_path)).load()
    assert [len(s) for s in data.splits().values()] == [9, 2, 3] and data.train.y is None
    np.testing.assert_array_equal(data.test.x.reshape(3, 784), bits[:3] * 255)

    grey = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    save("omniglot28.npz", images=grey, alphabet=np.arange(6, dtype=np.int16), split=np.array([2, 0, 0, 1, 0, 2], "u1"))
    data = Omniglot(root=str(tmp_path)).load()
    assert data.test.index.tolist() == [0, 5] and data.test.y.tolist() == [0, 5] and data.test.y.dtype == np.int64

    imgs = RNG.integers(0, 2, (30, 64, 64), dtype=np.uint8)
    factors = RNG.integers(0, 3, (30, 6))
    factors[:, 0] = 0
    pickled = np.array([Trap()], dtype=object)
    save("dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz", imgs=imgs, latents_classes=factors, metadata=pickled)
    save("dsprites_subset.npz", imgs=imgs, latents_classes=factors[:, 1:], metadata=pickled)
    for subset in ("full", "random"):
        data = Dsprites(root=str(tmp_path), subset=subset, valid=3, test=4).load()
        assert [len(s) for s in data.splits().values()] == [23, 3, 4]
        for s in data.splits().values():
            np.testing.assert_array_equal(s.factors, factors[s.index, 1:])
            np.testing.assert_array_equal(s.y, factors[s.index, 1])
            np.testing.assert_array_equal(s.x[:, 0], imgs[s.index] * 255)

    x = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    save("cifar10_subset.npz", x_train=x, y_train=np.arange(20) % 10, x_test=x[:5], y_test=np.arange(5))
    data = Cifar10(root=str(tmp_path), subset=True, valid=10).load()
    assert np.bincount(data.valid.y).tolist() == [1] * 10 and len(data.test) == 5
    np.testing.assert_array_equal(data.valid.x, x[data.valid.index].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("part", "name", "arrays", "message"),
    [
        (BinarizedMnist, "binarized_mnist.npz", {"train": np.zeros((3, 783), "u1")}, r"train has shape \[3, 783\]"),
        (BinarizedMnist, "binarized_mnist.npz", {"train": np.full((3, 784), 2, "u1")}, "values beside 0 and 255"),
        (Omniglot, "omniglot28.npz", {"images": np.zeros((2, 105, 105), "u1")}, r"expected \[any, 28, 28\]"),
        (
            Omniglot,
            "omniglot28.npz",
            {"images": np.zeros((2, 28, 28), "u1"), "alphabet": [0, 50], "split": [0, 1]},
            "expected alphabets 0..49",
        ),
        (
            Dsprites,
            "dsprites_downsampled.npz",
            {"imgs": np.zeros((9, 64, 64), "u1"), "latents_classes": np.full((9, 5), 3)},
            "latents_classes are not",
        ),
        (
            Dsprites,
            "dsprites_downsampled.npz",
            {"imgs": np.zeros((9, 64, 64), "u1"), "latents_classes": np.zeros((9, 4), int)},
            "latents_classes are not",
        ),
        (
            lambda root: Cifar10(root=root, subset=True),
            "cifar10_subset.npz",
            {"x_train": np.zeros((2, 32, 32, 3), "u1"), "x_test": np.zeros((1, 32, 32, 3), "u1")}
            | {"y_train": [0, 10], "y_test": [0]},
            "labels 0..9",
        ),
    ],
)
def test_the_packed_sets_refuse_another_content_and_a_missing_file(save, tmp_path, part, name, arrays, message):
    with pytest.raises(DataError, match=f"{tmp_path}: {name} not found .*Set data.root to the folder"):
        part(root=str(tmp_path)).load()
    save(name, **{k: np.asarray(v) for k, v in arrays.items()})
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        part(root=str(tmp_path)).load()
