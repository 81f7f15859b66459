"""Linear independent component analysis: heavy-tailed sources behind a matrix."""

from __future__ import annotations

__all__ = ["ICADensity"]

from functools import cached_property
from typing import Any

import numpy as np

from skebm._components import as_finite, check_choice, check_number, check_random_state
from skebm.datasets._base import KnownDensity

SOURCE_ENTROPY = {"logistic": 2.0, "laplace": 1 + np.log(2)}  # nats, at scale 1


class ICADensity(KnownDensity):
    r"""Independent sources s, mixed: :math:`x = s B^{-1}`.

    .. math:: \log p(x) = \sum_j \log p_s((x B)_j) + \log |\det B|

    Parameters
    ----------
    B : array-like of shape (d, d)
        Unmixing matrix, per unit of X, invertible.
    source : {"logistic", "laplace"}, default="logistic"
        Density of each source at scale 1: :math:`e^{-s} / (1 + e^{-s})^2` or
        :math:`e^{-|s|} / 2`.

    Attributes
    ----------
    B : ndarray of shape (d, d)
        Unmixing matrix.
    source : str
        Density of the sources.
    n_features : int
        The dimension d.
    entropy : float
        Differential entropy in nats, exact: d H(s) - log|det B| with H(s) = 2 for logistic and
        1 + log 2 for Laplace sources.

    Raises
    ------
    ValueError
        If `B` is not square, finite and invertible, or `source` is no choice.

    Notes
    -----
    The paper names Laplace sources; its table of log likelihoods is that of logistic ones. It draws
    "weight matrices" from N(0, 1), and the table is that of such unmixing matrices. A row costs
    ``2 d^2`` operations. With Laplace sources the score jumps where a source is 0.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       Middle-Man: Training and Evaluating Energy-Based Models without Sampling". Section 8.1 and
       Appendix B.5.

    Examples
    --------
    >>> from skebm.datasets import ICADensity
    >>> density = ICADensity([[2.0]], source="laplace")
    >>> print(f"{density.log_density([[0.0]])[0]:.4f}, {density.entropy:.4f}")
    0.0000, 1.0000
    >>> ICADensity.random(5, random_state=0).sample(3, random_state=0).shape
    (3, 5)
    """

    def __init__(self, B: Any, source: str = "logistic") -> None:
        self.B = as_finite("B", B)
        if self.B.ndim != 2 or self.B.shape[0] != self.B.shape[1] or not self.B.size:
            raise ValueError(
                f"B must have shape (d, d), got {self.B.shape}. It maps rows of X to sources."
            )
        check_choice("source", source, tuple(SOURCE_ENTROPY))
        self.source = source
        self.n_features = len(self.B)
        rank = np.linalg.matrix_rank(self.B)
        if rank < self.n_features:
            raise ValueError(
                f"B must be invertible, got rank {rank} in {self.n_features} dimensions. "
                "Drop columns of X that others determine."
            )
        self._log_volume = float(np.linalg.slogdet(self.B)[1])

    @classmethod
    def random(
        cls, n_features: int, source: str = "logistic", random_state: Any = None
    ) -> ICADensity:
        """Draw the paper's matrix: entries N(0, 1), until the condition number is below d.

        Parameters
        ----------
        n_features : int
            The dimension d; with 1 every matrix is taken.
        source : {"logistic", "laplace"}, default="logistic"
            Density of the sources.
        random_state : int, RandomState or None, default=None
            Seed or generator.

        Returns
        -------
        ICADensity
            The density.
        """
        check_number("n_features", n_features, low=1, integer=True)
        rng = check_random_state(random_state)
        B = rng.standard_normal((n_features, n_features))
        while n_features > 1 and np.linalg.cond(B) >= n_features:
            B = rng.standard_normal((n_features, n_features))
        return cls(B, source)

    @cached_property
    def entropy(self) -> float:
        """Differential entropy in nats."""
        return self.n_features * SOURCE_ENTROPY[self.source] - self._log_volume

    def _log_density(self, x: np.ndarray) -> np.ndarray:
        s = x @ self.B
        if self.source == "laplace":
            return self._log_volume - (np.abs(s) + np.log(2)).sum(axis=1)
        return self._log_volume - 2 * np.logaddexp(s / 2, -s / 2).sum(axis=1)

    def _score(self, x: np.ndarray) -> np.ndarray:
        s = x @ self.B
        pull = np.sign(s) if self.source == "laplace" else np.tanh(s / 2)
        return -pull @ self.B.T

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        draw = rng.laplace if self.source == "laplace" else rng.logistic
        sources = draw(size=(n, self.n_features))
        return np.linalg.solve(self.B.T, sources.T).T
