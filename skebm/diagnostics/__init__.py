"""Looking at chains: how far they are, how much they are worth, what they copy."""

__all__ = [
    "ChainSummary",
    "Chains",
    "ForceCorrelation",
    "Neighbors",
    "copy_ratio",
    "effective_sample_size",
    "force_correlation",
    "nearest_neighbors",
    "run_chains",
    "split_rhat",
    "summarize",
]

from skebm.diagnostics.chains import Chains, run_chains
from skebm.diagnostics.convergence import ChainSummary, effective_sample_size, split_rhat, summarize
from skebm.diagnostics.force import ForceCorrelation, force_correlation
from skebm.diagnostics.neighbors import Neighbors, copy_ratio, nearest_neighbors
