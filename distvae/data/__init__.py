"""Data sets. `load(part)` is `part.load()`, remembered by the process."""

from distvae.data.binarize import binarize
from distvae.data.dataset import DataError, Dataset, Split, load
from distvae.data.digits import Digits
from distvae.data.fashion_mnist import FashionMnist
from distvae.data.gaussian import Gaussian
from distvae.data.mnist import Mnist

Data = Digits | Mnist | FashionMnist | Gaussian

__all__ = ["Data", "DataError", "Dataset", "Digits", "FashionMnist", "Gaussian", "Mnist", "Split", "binarize", "load"]
