"""Encoders and decoders."""

from distvae.nets.mlp import Mlp

Net = Mlp

__all__ = ["Mlp", "Net"]
