"""Log partition functions, each with its standard error."""

__all__ = [
    "AIS",
    "Auto",
    "ImportanceSampling",
    "LogPartition",
    "LogPartitionBracket",
    "PartitionMethod",
    "Quadrature",
    "ReverseAIS",
]

from skebm.partition._base import LogPartition, PartitionMethod
from skebm.partition.ais import AIS
from skebm.partition.auto import Auto
from skebm.partition.importance import ImportanceSampling
from skebm.partition.quadrature import Quadrature
from skebm.partition.reverse_ais import LogPartitionBracket, ReverseAIS
