"""Encoders and decoders."""

from distvae.nets.mlp import Mlp

Net = Mlp
Conditioning = Mlp

__all__ = ["Mlp", "Net"]
