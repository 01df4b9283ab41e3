"""Metrics: what a trained model's rows hold beside rate and distortion. Pure functions on tensors and arrays, and the
parts that measure with them; `menu.Metric` is their union."""
