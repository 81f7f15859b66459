"""The map of rows with codes: numbers are mapped as ever, codes stay as they are."""

from __future__ import annotations

__all__ = ["MixedTransform"]

import numpy as np
import torch

from skebm.data.transform import Transform


class MixedTransform(Transform):
    """A map of the numbers of a row, beside its codes.

    Parameters
    ----------
    inner : Transform or None
        Of the numbers, which come first; None where there are none.
    steps : ndarray of shape (n_numbers,)
        Distance of the values of lattices, units of X; 0 for numbers without.
    absent : ndarray of int of shape (m, 3)
        Number i is absent where code j is below a: it is at 0, and has no volume.
    n_codes : int
        Columns of codes.
    atoms : ndarray of shape (m, most), optional
        What stands for number i where code j is 0, 1 ...; units of X.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import Affine
    >>> from skebm.data.mixed import MixedTransform
    >>> inner = Affine(np.array([1.0]), np.array([2.0]))
    >>> mixed = MixedTransform(inner, np.zeros(1), np.array([[0, 0, 1]]), 1)
    >>> mixed.forward(np.array([[5.0, 1.0], [5.0, 0.0]])).tolist()
    [[2.0, 1.0], [0.0, 0.0]]
    """

    steps: np.ndarray

    def __init__(
        self,
        inner: Transform | None,
        steps: np.ndarray,
        absent: np.ndarray,
        n_codes: int,
        atoms: np.ndarray | None = None,
    ) -> None:
        self.inner, self.n_codes = inner, int(n_codes)
        self.absent = np.asarray(absent, dtype=int).reshape(-1, 3)
        self.atoms = np.zeros((len(self.absent), 0)) if atoms is None else atoms
        self.steps, self.n_numbers = steps, len(steps)
        self.n_features = self.n_numbers + self.n_codes

    def is_absent(self, X: np.ndarray) -> np.ndarray:
        """Return which values of rows (n, d) do not exist."""
        out = np.zeros(X.shape, dtype=bool)
        for i, j, a in self.absent:
            out[:, i] |= X[:, self.n_numbers + j] < a
        return out

    def with_atoms(self, X: np.ndarray) -> np.ndarray:
        """Return rows (n, d) with what stands for numbers that do not exist in their place."""
        out = X.copy()
        for (i, j, a), atoms in zip(self.absent, self.atoms, strict=True):
            code = X[:, self.n_numbers + j].astype(int)
            out[:, i] = np.where(code < a, atoms[code.clip(max=a - 1)], X[:, i])
        return out

    def forward(
        self, X: np.ndarray, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Map rows (n, d) in the units of X to rows of standardized space."""
        X = np.asarray(X, dtype=np.float64)
        codes = torch.from_numpy(X[:, self.n_numbers :])
        if self.inner is None:
            return codes.to(dtype).to(device)
        z = self.inner.forward(X[:, : self.n_numbers], dtype=torch.float64)
        z = torch.cat([z, codes], 1)
        z[torch.from_numpy(self.is_absent(X))] = 0.0
        return z.to(dtype).to(device)

    def inverse(self, z: torch.Tensor) -> np.ndarray:
        """Map standardized rows (n, d) to float64 rows in the units of X, all of them finite."""
        codes = z[:, self.n_numbers :].detach().cpu().double().numpy()
        if self.inner is None:
            return codes
        return np.concatenate([self.inner.inverse(z[:, : self.n_numbers]), codes], axis=1)

    def log_slope(self, X: np.ndarray) -> np.ndarray:
        """Return log dz/dx at rows (n, d), nats, 0 of codes and of what is absent."""
        return self._beside_codes(X, "log_slope")

    def forward_and_log_slope(self, X: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Return `forward` in double precision and the rows' sums of `log_slope`, (n,)."""
        return self.forward(X, dtype=torch.float64), self.log_slope(X).sum(1)

    def slope_gradient(self, X: np.ndarray) -> np.ndarray:
        """Return the derivative of `log_slope` by x, nats per unit of X, 0 of codes: (n, d)."""
        return self._beside_codes(X, "slope_gradient")

    def state(self) -> dict[str, np.ndarray]:
        """Return the map of the numbers and what is known of the codes."""
        return {
            "inner": self.inner,  # type: ignore[dict-item]
            "steps": self.steps,
            "absent": self.absent,
            "n_codes": np.array(self.n_codes),
            "atoms": self.atoms,
        }

    def _beside_codes(self, X: np.ndarray, name: str) -> np.ndarray:
        out = np.zeros(X.shape)
        if self.inner is not None:
            out[:, : self.n_numbers] = getattr(self.inner, name)(X[:, : self.n_numbers])
            out[self.is_absent(X)] = 0.0
        return out
