"""Data sets. `load(part)` is `part.load()`, remembered by the process."""

from distvae.data.binarize import binarize
from distvae.data.binarized_mnist import BinarizedMnist
from distvae.data.celeba import Celeba
from distvae.data.cifar10 import Cifar10
from distvae.data.dataset import DataError, DataPart, Dataset, Split, load
from distvae.data.digits import Digits
from distvae.data.dsprites import Dsprites
from distvae.data.fashion_mnist import FashionMnist
from distvae.data.gaussian import Gaussian
from distvae.data.images import Images
from distvae.data.mnist import Mnist
from distvae.data.npz import Npz
from distvae.data.omniglot import Omniglot
from distvae.data.svhn import Svhn

Data = (
    Digits
    | Mnist
    | FashionMnist
    | Gaussian
    | BinarizedMnist
    | Omniglot
    | Dsprites
    | Cifar10
    | Svhn
    | Celeba
    | Images
    | Npz
)

__all__ = [
    "BinarizedMnist",
    "Celeba",
    "Cifar10",
    "Data",
    "DataError",
    "DataPart",
    "Dataset",
    "Digits",
    "Dsprites",
    "FashionMnist",
    "Gaussian",
    "Images",
    "Mnist",
    "Npz",
    "Omniglot",
    "Split",
    "Svhn",
    "binarize",
    "load",
]
