"""Feature nets: what FID, KID, precision and recall see of an image."""

from distvae.features.classifier import Classifier
from distvae.features.module import Module
from distvae.features.net import FeatureError, FeatureNetPart, Net, extract, fitted
from distvae.features.pixels import Pixels

FeatureNet = Classifier | Pixels | Module

__all__ = [
    "Classifier",
    "FeatureError",
    "FeatureNet",
    "FeatureNetPart",
    "Module",
    "Net",
    "Pixels",
    "extract",
    "fitted",
]
