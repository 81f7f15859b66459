"""What a game of energy and generator is told beside its players."""

from __future__ import annotations

__all__ = ["GeneratorEntropy", "UpperBound"]

from skebm._components import Component, check_choice, check_number

BOUNDS = ("bidirectional", "zero-centered-gp", "wgan-gp", "wgan-0gp")
BY_JACOBIAN = ("logdet", "singular-value", "hutchinson")
ENTROPIES = (*BY_JACOBIAN, "mutual-information", "variational")
PROBES = ("gaussian", "sphere")


class UpperBound(Component):
    """What holds the energy of a game back.

    Parameters
    ----------
    kind : {"bidirectional", "zero-centered-gp", "wgan-gp", "wgan-0gp"}, default="bidirectional"
        The paper's bound; the squared slope at the data (the paper's EBM-0GP); or a Wasserstein
        critic's penalty, with interpolated rows (``"wgan-gp"``) or the data (``"wgan-0gp"``).
    exponent : float, default=2.0
        p of the penalty, at least 1. For 2 one random direction estimates it; else its whole vector
        is computed, at twice the cost or more.
    probe : {"gaussian", "sphere"}, default="gaussian"
        Random directions v of the penalty; ``"sphere"`` is the paper's variant, with
        :math:`|v|^2` in the place of d.

    Raises
    ------
    ValueError, TypeError
        From ``check``, on a bad parameter.

    Examples
    --------
    >>> from skebm.objectives import UpperBound
    >>> UpperBound(probe="sphere")
    UpperBound(probe='sphere')
    """

    def __init__(
        self, kind: str = "bidirectional", exponent: float = 2.0, probe: str = "gaussian"
    ) -> None:
        self.kind = kind
        self.exponent = exponent
        self.probe = probe

    def check(self) -> None:
        """Check the parameters."""
        check_choice("bound", self.kind, BOUNDS)
        check_number("exponent", self.exponent, low=1)
        check_choice("probe", self.probe, PROBES)

    @property
    def is_wasserstein(self) -> bool:
        """Whether the energy is a critic and no density; then no entropy is used."""
        return self.kind.startswith("wgan")


class GeneratorEntropy(Component):
    r"""How the entropy of a generator is had.

    Parameters
    ----------
    kind : {"logdet", "singular-value", "hutchinson", "mutual-information", "variational"}
        The exact log determinant (default), the paper's bound :math:`d \log s_1` (iterated beyond
        64 latents), Hutchinson's estimate, an estimate of information by a further network (MEG),
        or the posterior gradient of VERA. The last two give no density for the paper's bound.
    weight : float, default=1.0
        Factor on the entropy; any other than 1 trains a tempered density.
    fold_penalty : float, default=10.0
        How hard latents whose Jacobian has the rarer orientation are pushed back, for a square
        generator with ``"logdet"``; 0 is the paper.
    n_lobpcg : int, default=10
        Iterations for the smallest singular value beyond 64 latents; the paper's code takes 2, with
        which the lower bound is none.

    Raises
    ------
    ValueError, TypeError
        From ``check``, on a bad parameter.

    Examples
    --------
    >>> from skebm.objectives import GeneratorEntropy
    >>> GeneratorEntropy("singular-value").by_jacobian
    True
    """

    def __init__(
        self,
        kind: str = "logdet",
        weight: float = 1.0,
        fold_penalty: float = 10.0,
        n_lobpcg: int = 10,
    ) -> None:
        self.kind = kind
        self.weight = weight
        self.fold_penalty = fold_penalty
        self.n_lobpcg = n_lobpcg

    def check(self) -> None:
        """Check the parameters."""
        check_choice("entropy", self.kind, ENTROPIES)
        check_number("weight", self.weight, low=0)
        check_number("fold_penalty", self.fold_penalty, low=0)
        check_number("n_lobpcg", self.n_lobpcg, low=1, integer=True)

    @property
    def by_jacobian(self) -> bool:
        """Whether it comes from the generator's Jacobian, and so with a density."""
        return self.kind in BY_JACOBIAN
