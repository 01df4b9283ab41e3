"""The metrics that `metrics:` and `distvae eval --metrics` choose from. Not in the package's `__init__`: objectives use
functions of the package, and some metrics use samplers, which use models, which use objectives."""

from distvae.metrics.active_units import ActiveUnits
from distvae.metrics.clustering import Clustering
from distvae.metrics.dci import DciScores
from distvae.metrics.decomposition import Decomposition
from distvae.metrics.diversity import Diversity
from distvae.metrics.factorvae import FactorVae
from distvae.metrics.fid import Fid
from distvae.metrics.importance import IwNll
from distvae.metrics.kid import KernelDistance
from distvae.metrics.linear_probe import LinearProbe
from distvae.metrics.mig import Mig
from distvae.metrics.mmd import Mmd
from distvae.metrics.precision_recall import PrecisionAndRecall
from distvae.metrics.rate import Rate
from distvae.metrics.reconstruction import Reconstruction
from distvae.metrics.sap import Sap
from distvae.metrics.sparsity import Sparsity

Density = IwNll | Rate | Decomposition | Diversity | Reconstruction
Code = ActiveUnits | Sparsity | Mmd
Labels = Clustering | LinearProbe
Factors = Mig | DciScores | Sap | FactorVae
Samples = Fid | KernelDistance | PrecisionAndRecall
Metric = Density | Code | Labels | Factors | Samples
