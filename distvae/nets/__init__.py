"""Encoders, decoders, and their conditioning on beta."""

from distvae.nets.conditioned import ConditioningPart
from distvae.nets.conv import Conv
from distvae.nets.conv3x3 import Conv3x3
from distvae.nets.conv_large import ConvLarge
from distvae.nets.film import Film
from distvae.nets.gate import Gate
from distvae.nets.mlp import Mlp
from distvae.nets.net import NetPart

Net = Mlp | Conv | ConvLarge | Conv3x3
Conditioning = Film | Gate

__all__ = ["Conditioning", "ConditioningPart", "Conv", "Conv3x3", "ConvLarge", "Film", "Gate", "Mlp", "Net", "NetPart"]
