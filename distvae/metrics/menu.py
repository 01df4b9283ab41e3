"""The metrics that `metrics:` and `distvae eval --metrics` choose from. Not in the package's `__init__`: objectives use
functions of the package, and some metrics use samplers, which use models, which use objectives."""

from distvae.metrics.clustering import Clustering
from distvae.metrics.dci import DciScores
from distvae.metrics.factorvae import FactorVae
from distvae.metrics.fid import Fid
from distvae.metrics.kid import KernelDistance
from distvae.metrics.linear_probe import LinearProbe
from distvae.metrics.mig import Mig
from distvae.metrics.precision_recall import PrecisionAndRecall
from distvae.metrics.sap import Sap

Metric = Clustering | LinearProbe | Fid | KernelDistance | PrecisionAndRecall | Mig | DciScores | Sap | FactorVae
