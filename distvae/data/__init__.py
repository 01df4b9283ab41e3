"""Data sets."""

from distvae.data.dataset import DataError, Dataset, Split
from distvae.data.digits import Digits

Data = Digits

__all__ = ["Data", "DataError", "Dataset", "Digits", "Split"]


def load(part: Data) -> Dataset:
    return part.load()
