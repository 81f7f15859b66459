"""How evenly a generator uses the directions of its latent space."""

from __future__ import annotations

__all__ = ["AnisotropyIndex", "anisotropy_index"]

import math
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm._components import check_number
from skebm._surroundings import own_settings
from skebm.data import torch_generator
from skebm.networks._evaluating import evaluating
from skebm.networks.jacobian import load_forward_rules

BLOCK = 256  # latents whose derivatives are taken at once


class AnisotropyIndex(NamedTuple):
    """How unevenly the latent directions move the output, with the errors of the means.

    Parameters
    ----------
    value : float
        Mean over latents of the standard deviation of the derivatives' lengths, in units of the
        output per unit of z; smaller is more even.
    stderr : float
        Standard error of `value`, in the same units.
    ratio : float
        Mean over latents of that standard deviation divided by the mean length, dimensionless; NaN
        where the output does not move at some latent.
    ratio_stderr : float
        Standard error of `ratio`, dimensionless.

    Examples
    --------
    >>> from skebm.metrics import AnisotropyIndex
    >>> AnisotropyIndex(value=0.5, stderr=0.01, ratio=0.25, ratio_stderr=0.005).ratio
    0.25
    """

    value: float
    stderr: float
    ratio: float
    ratio_stderr: float


@own_settings()
def anisotropy_index(
    generator: Any,
    latent_dim: int | None = None,
    *,
    n_samples: int = 1000,
    random_state: int | np.random.RandomState | None = None,
) -> AnisotropyIndex:
    r"""Return the anisotropy index of a generator, and its scale-free ratio.

    With J the Jacobian of G at z and :math:`e_i` the axes of the latent space, the mean over
    :math:`z \sim N(0, I)` of

    .. math:: C_z = \operatorname{std}(\{\|J e_i\|\}_{i = 1 \dots k}).

    Parameters
    ----------
    generator : torch.nn.Module or fitted estimator
        The map G from (n, k) latents to (n, ...) outputs, row by row, or an estimator with
        ``generator_`` and ``latent_dim_``.
    latent_dim : int, default=None
        Dimension k of the latent space, >= 1; ``None`` takes the estimator's.
    n_samples : int, default=1000
        Number of latents, >= 2. More make the error smaller, as ``n_samples ** -0.5``.
    random_state : int, RandomState or None, default=None
        Seed or generator of the latents.

    Returns
    -------
    AnisotropyIndex
        Fields `value`, `stderr`, `ratio` and `ratio_stderr`.

    Raises
    ------
    ValueError
        If a module comes without `latent_dim` or with another than it takes, a number is out of its
        range, or a derivative is not finite.
    TypeError
        If `generator` is neither a module nor has ``generator_`` and ``latent_dim_``, or a number
        is none.

    Notes
    -----
    The standard deviation is that of the k lengths themselves (division by k); the papers leave
    that open. The index doubles where the output does: compare generators by it only where their
    outputs have the same scale, and by `ratio` otherwise. Both are 0 for k = 1.

    The module is in evaluation mode meanwhile, so that batch normalization acts row by row; each
    part's mode is put back. The output's units are the module's own: standardized ones for an
    estimator. Costs k forward-mode derivatives per latent, one column of J at a time.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds", NeurIPS 2021. Eq. 21.

    Examples
    --------
    >>> import torch
    >>> from skebm.metrics import anisotropy_index
    >>> linear = torch.nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = linear.weight.copy_(torch.diag(torch.tensor([3.0, 1.0])))
    >>> index = anisotropy_index(linear, 2, n_samples=10, random_state=0)
    >>> print(f"{index.value:.3f} {index.ratio:.3f}")
    1.000 0.500
    """
    module, latent_dim = _module_and_size(generator, latent_dim)
    check_number("latent_dim", latent_dim, low=1, integer=True, remedy="Pass the size of z.")
    check_number("n_samples", n_samples, low=2, integer=True, remedy="Try 1000.")
    like = next(chain(module.parameters(), module.buffers()), torch.empty(0))
    z = torch.empty(n_samples, latent_dim).normal_(generator=torch_generator(random_state))
    with evaluating(module), torch.no_grad():
        blocks = z.to(device=like.device, dtype=like.dtype).split(BLOCK)
        try:
            module(blocks[0][:1])
        except RuntimeError as error:
            raise ValueError(
                f"latent_dim must be the size of the generator's latents, got {latent_dim}: "
                f"{error}. Pass the size of z."
            ) from error
        lengths = torch.cat([_column_lengths(module, block) for block in blocks]).numpy()
    n_bad = np.count_nonzero(~np.isfinite(lengths))
    if n_bad:
        raise ValueError(
            f"generator must have finite derivatives, got {n_bad} of {lengths.size} that are not. "
            "Look at its parameters."
        )
    spread = lengths.std(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing moves
        ratio = spread / lengths.mean(axis=1)
    return AnisotropyIndex(*_mean(spread), *_mean(ratio))


def _module_and_size(generator: Any, latent_dim: int | None) -> tuple[torch.nn.Module, int]:
    if isinstance(generator, torch.nn.Module):
        if latent_dim is None:
            raise ValueError("latent_dim must be an integer >= 1, got None. Pass the size of z.")
        return generator, latent_dim
    if hasattr(generator, "generator_") and hasattr(generator, "latent_dim_"):
        if latent_dim not in (None, generator.latent_dim_):
            raise ValueError(
                f"latent_dim must be the estimator's {generator.latent_dim_}, got {latent_dim!r}. "
                "Leave it out."
            )
        return generator.generator_, generator.latent_dim_
    raise TypeError(
        "generator must be a torch.nn.Module or an estimator with generator_ and latent_dim_, got "
        f"{type(generator).__name__}. Fit the estimator first."
    )


def _column_lengths(module: torch.nn.Module, z: torch.Tensor) -> torch.Tensor:
    """Lengths of the columns of J at each latent, (n, k) in float64 on the CPU."""
    load_forward_rules()
    lengths = []
    for axis in torch.eye(z.shape[1], dtype=z.dtype, device=z.device):
        _, column, *_ = torch.func.jvp(module, (z,), (axis.expand_as(z),))
        lengths.append(column.flatten(1).cpu().double().norm(dim=1))
    return torch.stack(lengths, dim=1)


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
