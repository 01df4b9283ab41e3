"""CIFAR-10, SVHN and CelebA in tiny files of torchvision's exact formats, whose md5 sums its tables are made to hold
(the published files are not here): ours must be what its loaders give, and a wrong sum must stop us before they run."""

import hashlib
import pickle

import numpy as np
import pytest
import torchvision.datasets as tv
from PIL import Image
from scipy.io import savemat
from torchvision.transforms import CenterCrop, Compose, Resize

from distvae.data import Celeba, Cifar10, DataError, Svhn

RNG = np.random.default_rng(0)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTVAE_DATA", raising=False)


def together(data, name):
    """Train and valid, in the order of ids."""
    order = np.argsort(np.concatenate([data.train.index, data.valid.index]))
    return np.concatenate([getattr(data.train, name), getattr(data.valid, name)])[order]


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Five training batches of 8 and a test batch of 10."""
    folder = tmp_path / "root" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    for name, n in (*((f"data_batch_{i}", 8) for i in range(1, 6)), ("test_batch", 10)):
        batch = {"data": RNG.integers(0, 256, (n, 3072), dtype=np.uint8), "labels": (np.arange(n) % 10).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
        sums[name] = md5(folder / name)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(tv.CIFAR10, "train_list", [[n, s] for n, s in sums.items() if n != "test_batch"])
    monkeypatch.setattr(tv.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(tv.CIFAR10, "meta", {**tv.CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    return tmp_path / "root"


def test_cifar10_is_what_its_loader_gives(cifar):
    data = Cifar10(root=str(cifar), valid=8).load()
    assert [len(s) for s in data.splits().values()] == [32, 8, 10] and data.x_shape == Cifar10().shape
    train, test = tv.CIFAR10(cifar, train=True), tv.CIFAR10(cifar, train=False)
    np.testing.assert_array_equal(together(data, "x"), train.data.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(together(data, "y"), train.targets)
    np.testing.assert_array_equal(data.test.x, test.data.transpose(0, 3, 1, 2))
    assert data.test.y.tolist() == test.targets and data.test.index.tolist() == list(range(40, 50))


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_cifar10_pickle_with_another_md5_is_never_unpickled(cifar, name):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    path = cifar / "cifar-10-batches-py" / name
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=f"{name}: md5 .* expected .* truncated or altered. Replace the file"):
        Cifar10(root=str(cifar), valid=0).load()
    path.unlink()
    with pytest.raises(DataError, match=f"{name}: No such file"):
        Cifar10(root=str(cifar), valid=0).load()


def test_a_folder_with_only_the_subset_says_so(tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-batches-py not found .*needs data.subset: true"):
        Cifar10(root=str(tmp_path)).load()


# --- SVHN -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """X [32, 32, 3, N] and y [N, 1] of labels 1..10, as the published .mat files."""
    table = dict(tv.SVHN.split_list)
    for split, n in (("train", 40), ("test", 10)):
        x, y = RNG.integers(0, 256, (32, 32, 3, n), dtype=np.uint8), (np.arange(n) % 10 + 1).astype(np.uint8)
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": x, "y": y[:, None]}, do_compression=True)
        table[split] = [table[split][0], path.name, md5(path)]
    monkeypatch.setattr(tv.SVHN, "split_list", table)
    return tmp_path


def test_svhn_is_what_its_loader_gives_and_tests_on_the_test_file(svhn):
    data = Svhn(root=str(svhn), valid=10).load()
    assert [len(s) for s in data.splits().values()] == [30, 10, 10] and data.x_shape == Svhn().shape
    train, test = tv.SVHN(svhn, split="train"), tv.SVHN(svhn, split="test")
    np.testing.assert_array_equal(together(data, "x"), train.data)
    np.testing.assert_array_equal(together(data, "y"), train.labels)
    np.testing.assert_array_equal(data.test.x, test.data)
    assert data.test.y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert np.bincount(data.valid.y).tolist() == [1] * 10 and data.train.x.flags.c_contiguous


def test_a_truncated_or_missing_svhn_file_is_named(svhn):
    path = svhn / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_32x32.mat: md5 .*Fetch it again from http"):
        Svhn(root=str(svhn), valid=0).load()
    path.unlink()
    with pytest.raises(DataError, match=r"test_32x32.mat not found \(data.root: .*download=True"):
        Svhn(root=str(svhn), valid=0).load()


# --- CelebA -----------------------------------------------------------------------------------------------------------

CODES = [0] * 12 + [1] * 3 + [2] * 5


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    """Twenty faces of 178x218 and the five text files, in the layout of the published archive."""
    folder = tmp_path / "root" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.jpg" for i in range(len(CODES))]
    for i, name in enumerate(names):
        coarse = RNG.integers(0, 256, (7, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((178, 218)).save(folder / "img_align_celeba" / name, quality=80 + i % 10)

    def table(columns, values, header):
        rows = [f"{n} {' '.join([*map(str, [values(i)] * columns)])}" for i, n in enumerate(names)]
        return "\n".join([*([str(len(names)), " ".join(["c"] * columns)] if header else []), *rows]) + "\n"

    files = {
        "list_eval_partition.txt": table(1, lambda i: CODES[i], False),
        "identity_CelebA.txt": table(1, lambda i: i // 2, False),
        "list_bbox_celeba.txt": table(4, lambda i: i, True),
        "list_landmarks_align_celeba.txt": table(10, lambda i: i, True),
        "list_attr_celeba.txt": table(40, lambda i: 2 * (i % 2) - 1, True),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    sums = [(i, md5(folder / n) if n in files else s, n) for i, s, n in tv.CelebA.file_list]
    monkeypatch.setattr(tv.CelebA, "file_list", sums)
    return tmp_path / "root"


@pytest.mark.parametrize(("size", "crop"), [(64, 148), (32, 140), (64, 128)])
def test_celeba_is_what_its_loader_and_the_usual_transforms_give(celeba, size, crop):
    data = Celeba(root=str(celeba), size=size, crop=crop).load()
    assert data.name == f"celeba{size}_crop{crop}" and data.x_shape == Celeba(size=size).shape
    for name, split in data.splits().items():
        theirs = tv.CelebA(celeba, split=name, transform=Compose([CenterCrop(crop), Resize(size)]))
        assert [f"{i + 1:06}.jpg" for i in split.index] == theirs.filename
        for x, (image, _) in zip(split.x, theirs, strict=True):
            np.testing.assert_array_equal(x, np.asarray(image).transpose(2, 0, 1))


def test_celeba_limits_and_consecutive_images(celeba):
    def ids(**kw):
        return [s.index.tolist() for s in Celeba(root=str(celeba), size=32, **kw).load().splits().values()]

    assert ids() == [list(range(12)), [12, 13, 14], [15, 16, 17, 18, 19]]
    assert ids(n_train=4, n_valid=0, n_test=2) == [[0, 1, 2, 3], [15, 16]]
    assert ids(n_test=1)[2] == [15]
    assert ids(split="first", n_train=6, n_valid=0, n_test=3) == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]
    with pytest.raises(DataError, match=r"\[20, 0, 1\] are more than the 20 images"):
        ids(split="first", n_train=20, n_valid=0, n_test=1)


def test_celeba_is_decoded_once_for_every_split_and_limit(celeba, monkeypatch):
    from distvae.data import decode

    part = Celeba(root=str(celeba), size=32)
    first = part.load()
    monkeypatch.setattr(decode, "_one", None)
    np.testing.assert_array_equal(part.load().train.x, first.train.x)
    assert isinstance(first.train.x.base.base, np.memmap)  # a view of the mapped cache: no copy in memory
    assert len(Celeba(root=str(celeba), size=32, n_train=5).load().train) == 5


def test_celeba_without_a_sound_partition_or_an_image_is_refused(celeba):
    image = celeba / "celeba" / "img_align_celeba" / "000007.jpg"
    image.rename(image.with_suffix(".png"))
    with pytest.raises(DataError, match=r"img_align_celeba/000007.jpg: No such file"):
        Celeba(root=str(celeba)).load()
    image.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"000007.jpg: cannot be read as an image"):
        Celeba(root=str(celeba)).load()
    Image.new("RGB", (100, 218)).save(image)
    with pytest.raises(DataError, match=r"000007.jpg: is 100x218, too small for a crop of 148"):
        Celeba(root=str(celeba)).load()
    partition = celeba / "celeba" / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace(" 2", " 0"))
    with pytest.raises(DataError, match=r"list_eval_partition.txt: md5 .* truncated or altered"):
        Celeba(root=str(celeba)).load()
    partition.unlink()
    with pytest.raises(DataError, match=r"celeba/list_eval_partition.txt not found .*download=True"):
        Celeba(root=str(celeba)).load()
