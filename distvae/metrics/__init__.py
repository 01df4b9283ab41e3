"""Metrics of trained models: what a trial's rows hold beside rate and distortion (`metrics:` in the YAML, or `distvae
eval`)."""

from distvae.metrics._tmp import Moments, Sizes

Metric = Moments | Sizes
