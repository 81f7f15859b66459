"""Singular values of a generator's Jacobian, and the volume that it spans."""

from __future__ import annotations

__all__ = [
    "SmallestSingularValue",
    "half_log_det",
    "log_smallest",
    "log_volume",
    "singular_values",
    "smallest_singular_value",
    "value_and_jacobian",
]

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn.functional import normalize

from skebm._components import check_choice, check_number

MOST_EXACT = 64  # latent dimensions up to which a dense decomposition is worth its price
METHODS = ("logdet", "singular-value", "hutchinson")
SOLVERS = ("auto", "exact", "lobpcg")


class SmallestSingularValue(NamedTuple):
    """Smallest singular value of each Jacobian in a batch, without a graph.

    Parameters
    ----------
    value : Tensor of shape (n,)
        :math:`|J v|`, units of x per unit of z. From above: at least the true value.
    vector : Tensor of shape (n, d)
        Unit vector v, the right singular vector.
    residual : Tensor of shape (n,)
        Euclidean norm of :math:`J^T J v - |J v|^2 v`, units of J squared; 0 at a solution.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import smallest_singular_value
    >>> found = smallest_singular_value(torch.nn.Linear(2, 3), torch.zeros(4, 2))
    >>> found.vector.shape
    torch.Size([4, 2])
    """

    value: torch.Tensor
    vector: torch.Tensor
    residual: torch.Tensor


def value_and_jacobian(
    generator: torch.nn.Module, z: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return a generator's output and its Jacobian :math:`J = \partial x / \partial z` per row.

    Parameters
    ----------
    generator : torch.nn.Module
        Maps (n, d) to (n, ...), one row at a time: batch normalization in eval mode. Its method
        ``value_and_jacobian(z)``, with the outputs of this function, is used where there is one.
    z : Tensor of shape (n, d)
        Latent rows (dimensionless).

    Returns
    -------
    x : Tensor of shape (n, D)
        Output, flattened, with a graph.
    jacobian : Tensor of shape (n, D, d)
        Units of x per unit of z, with a graph through the parameters and z.

    Raises
    ------
    ValueError
        If z is not a matrix.

    Notes
    -----
    Forward mode: one pass that carries d tangents beside the values, about the cost and the memory
    of 1 + 2 d evaluations, however large D is.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import value_and_jacobian
    >>> x, J = value_and_jacobian(torch.nn.Linear(2, 3), torch.zeros(4, 2))
    >>> x.shape, J.shape
    (torch.Size([4, 3]), torch.Size([4, 3, 2]))
    """
    _check_latent(z)
    written_out = getattr(generator, "value_and_jacobian", None)
    if written_out is not None:
        return written_out(z)
    n, d = z.shape
    return push_forward(generator, z, torch.eye(d, dtype=z.dtype, device=z.device).expand(n, d, d))


def singular_values(jacobian: torch.Tensor) -> torch.Tensor:
    r"""Return the singular values :math:`s_1 \le \dots \le s_d` of each matrix.

    Parameters
    ----------
    jacobian : Tensor of shape (n, D, d)
        Matrices with D >= d.

    Returns
    -------
    Tensor of shape (n, d)
        Ascending, in units of the matrix; differentiable where they are distinct and positive.

    Raises
    ------
    ValueError
        If the matrices have fewer rows than columns.

    Notes
    -----
    For two columns a and b, :math:`s_2^2 = (|a|^2 + |b|^2 + g) / 2` with
    :math:`g^2 = (|a|^2 - |b|^2)^2 + 4 (a \cdot b)^2`, and :math:`s_1` is the area of their
    parallelogram over :math:`s_2`: no difference of nearly equal numbers. Otherwise
    `torch.linalg.svdvals`. Where values coincide or are 0 the gradient is one of the possible
    ones, finite.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import singular_values
    >>> singular_values(torch.tensor([[[3.0, 0.0], [0.0, -2.0]]]))
    tensor([[2., 3.]])
    """
    _check_tall(jacobian.shape)
    d = jacobian.shape[-1]
    if d == 1:
        return torch.linalg.vector_norm(jacobian, dim=1)
    if d > 2:
        return torch.linalg.svdvals(jacobian).flip(-1)
    a, b = jacobian.unbind(-1)
    aa, bb, ab = a.square().sum(1), b.square().sum(1), (a * b).sum(1)
    gap = torch.linalg.vector_norm(torch.stack([aa - bb, 2 * ab]), dim=0)
    largest = ((aa + bb + gap) / 2).clamp(min=torch.finfo(aa.dtype).tiny).sqrt()
    smallest = torch.minimum(_area(jacobian) / largest, largest)
    return torch.stack([smallest, largest], 1)


def half_log_det(jacobian: torch.Tensor, floor: float = 1e-6) -> torch.Tensor:
    r"""Return :math:`\frac12 \log\det(J^T J)`, the log volume that each Jacobian spans.

    Parameters
    ----------
    jacobian : Tensor of shape (n, D, d)
        Matrices with D >= d; for D = d this is ``log |det J|``.
    floor : float, default=1e-6
        Singular values below it count as it, and pass no gradient (units of the matrix). Larger is
        safer where the generator folds, and more biased.

    Returns
    -------
    Tensor of shape (n,)
        nats, with a graph; finite wherever the Jacobian is.

    Raises
    ------
    ValueError, TypeError
        If the matrices have fewer rows than columns, or `floor` is not a positive number.

    Notes
    -----
    Closed forms up to two columns, else a QR decomposition, whose error grows with the condition
    number where that of the Gram matrix grows with its square. Only rows with a singular value
    near the floor pay for a singular value decomposition.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". NeurIPS, 2021. Eq. 8 to 10.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import half_log_det
    >>> half_log_det(torch.tensor([[[3.0, 0.0], [0.0, -2.0]], [[1.0, 1.0], [1.0, 1.0]]]))
    tensor([  1.7918, -13.1224])
    """
    _check_tall(jacobian.shape)
    check_number("floor", floor, low=0, open_low=True)
    volume, least = _volume(jacobian)
    regular = least > floor  # false for nan
    if regular.all():
        return volume
    parts = volume.new_zeros(len(volume)).masked_scatter(regular, _volume(jacobian[regular])[0])
    return parts.masked_scatter(~regular, _clamped_volume(jacobian[~regular], floor))


def flat_rows(jacobian: torch.Tensor, floor: float) -> torch.Tensor:
    """Return which matrices (n, D, d) have a singular value below the floor, (n,).

    A bound from a QR decomposition clears most; the others pay for their singular values.
    """
    flat = ~(_volume(jacobian)[1] > floor)
    if flat.any():
        flat = flat.masked_scatter(flat, singular_values(jacobian[flat])[:, 0] < floor)
    return flat


def smallest_singular_value(
    generator: torch.nn.Module,
    z: torch.Tensor,
    *,
    solver: str = "auto",
    n_iter: int = 10,
    rng: torch.Generator | None = None,
) -> SmallestSingularValue:
    r"""Find the smallest singular value of the Jacobian at each latent row.

    Parameters
    ----------
    generator : torch.nn.Module
        As in `value_and_jacobian`.
    z : Tensor of shape (n, d)
        Latent rows.
    solver : {"auto", "exact", "lobpcg"}, default="auto"
        ``"exact"`` decomposes the whole Jacobian (a closed form for d = 2); ``"lobpcg"`` iterates
        without forming it; ``"auto"`` is exact for d up to 64.
    n_iter : int, default=10
        Iterations of ``"lobpcg"``; more bring the value down to the true one. With 0 it is that of
        a random direction.
    rng : torch.Generator, optional
        Draws the first direction of ``"lobpcg"``, which cannot do without.

    Returns
    -------
    SmallestSingularValue
        Values, vectors and residuals, without a graph.

    Raises
    ------
    ValueError, TypeError
        On a bad parameter, or if the output is narrower than z.

    Notes
    -----
    An iteration minimizes :math:`|J v| / |v|` over the span of v, its gradient
    :math:`J^T J v - |J v|^2 v` and the last move, at the price of one reverse pass and one forward
    pass with two tangents. The value is never below the true one and does not rise, but it comes
    down slowly where small singular values are crowded: with 128 values spread evenly in logarithm
    over a factor 100 it is 13 times too large after 2 iterations, 5 times after 10. An entropy of
    128 times its logarithm is then no lower bound. The residual shows it.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". NeurIPS, 2021. Section 3, Eq. 16 and 17.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import smallest_singular_value
    >>> linear = torch.nn.Linear(2, 2)
    >>> linear.weight.data = torch.tensor([[3.0, 0.0], [0.0, -2.0]])
    >>> smallest_singular_value(linear, torch.zeros(1, 2)).value
    tensor([2.])
    """
    _check_latent(z)
    check_choice("solver", solver, SOLVERS)
    check_number("n_iter", n_iter, low=0, integer=True)
    with torch.no_grad():
        if _is_exact(solver, z.shape[1]):
            return _decompose(value_and_jacobian(generator, z)[1])
        return _iterate(generator, z.detach(), n_iter, _required(rng, "rng"))


def log_smallest(
    generator: torch.nn.Module, z: torch.Tensor, vector: torch.Tensor, floor: float = 1e-6
) -> torch.Tensor:
    r"""Return :math:`\log |J(z) v|` with v held fixed.

    At the right singular vector of :math:`s_1` this is :math:`\log s_1`, and its gradient in the
    parameters and in z is that of :math:`\log s_1`: to first order the minimum over v does not
    feel a change of v (the envelope theorem).

    Parameters
    ----------
    generator : torch.nn.Module
        As in `value_and_jacobian`.
    z : Tensor of shape (n, d)
        Latent rows.
    vector : Tensor of shape (n, d)
        Unit vectors, from `smallest_singular_value`.
    floor : float, default=1e-6
        Lengths below it count as it, and pass no gradient (units of x per unit of z).

    Returns
    -------
    Tensor of shape (n,)
        nats, with a graph; finite wherever the Jacobian is.

    Raises
    ------
    ValueError, TypeError
        If z is not a matrix, `vector` has another shape, or `floor` is not a positive number.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". NeurIPS, 2021. Section 3, Eq. 16.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import log_smallest
    >>> linear = torch.nn.Linear(2, 2)
    >>> linear.weight.data = torch.tensor([[3.0, 0.0], [0.0, -2.0]])
    >>> log_smallest(linear, torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])).exp().detach()
    tensor([2.0000])
    """
    _check_latent(z)
    check_number("floor", floor, low=0, open_low=True)
    if vector.shape != z.shape:
        raise ValueError(
            f"vector must have the shape of z, {tuple(z.shape)}, got {tuple(vector.shape)}. Take "
            "it from smallest_singular_value at the same z."
        )
    return _log_length(push_forward(generator, z, vector[:, :, None])[1], floor)


def log_volume(
    generator: torch.nn.Module,
    z: torch.Tensor,
    method: str = "logdet",
    *,
    solver: str = "auto",
    n_iter: int = 10,
    n_probes: int = 1,
    floor: float = 1e-6,
    rng: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Return the Jacobian's term of the generator's entropy, exactly or by a cheaper estimate.

    The entropy of x = G(z), z from N(0, I), is that of z plus the mean of
    :math:`\frac12 \log\det(J^T J)`, if G never maps two latent points to one.

    Parameters
    ----------
    generator : torch.nn.Module
        As in `value_and_jacobian`.
    z : Tensor of shape (n, d)
        Latent rows.
    method : {"logdet", "singular-value", "hutchinson"}, default="logdet"
        ``"logdet"`` is the term itself; ``"singular-value"`` is :math:`d \log s_1`, at most that;
        ``"hutchinson"`` is :math:`\frac d2 \log (\frac 1d \mathrm{mean}\, |J v|^2)` over probes v
        from N(0, I), at least that in the limit of many probes.
    solver : {"auto", "exact", "lobpcg"}, default="auto"
        `solver` of `smallest_singular_value`, for ``"singular-value"``.
    n_iter : int, default=10
        Iterations of LOBPCG; with too few ``"singular-value"`` is too large.
    n_probes : int, default=1
        Probes of ``"hutchinson"`` per row; more are less noisy, and less biased downwards.
    floor : float, default=1e-6
        Singular values, or their mean, below it count as it (units of x per unit of z).
    rng : torch.Generator, optional
        Draws probes and first directions; ``"logdet"`` and the exact solver need none.

    Returns
    -------
    Tensor of shape (n,)
        nats, with a graph through the parameters and z; finite wherever the Jacobian is.

    Raises
    ------
    ValueError, TypeError
        On a bad parameter, or, but for ``"hutchinson"``, if the output is narrower than z.

    Notes
    -----
    The mean of the :math:`s_i^2` is at least their geometric mean, and :math:`|J v|^2` has mean
    :math:`\sum_i s_i^2`; hence the upper bound. With few probes the estimate is lower than that on
    average, by Jensen's inequality: one probe and equal singular values give 0.5 to 0.6 nats less.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". NeurIPS, 2021. Section 2.1, Eq. 9 to 11.
    .. [2] A. Kumar, B. Poole and K. Murphy, "Regularized autoencoders via relaxed injective
       probability flow". AISTATS, 2020. What section 3 of [1]_ calls Hutchinson's estimator.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import log_volume
    >>> linear = torch.nn.Linear(2, 2)
    >>> linear.weight.data = torch.tensor([[3.0, 0.0], [0.0, -2.0]])
    >>> [log_volume(linear, torch.zeros(1, 2), m).item() for m in ("logdet", "singular-value")]
    [1.7917, 1.3862]
    """
    _check_latent(z)
    check_choice("method", method, METHODS)
    check_choice("solver", solver, SOLVERS)
    check_number("n_iter", n_iter, low=0, integer=True)
    check_number("n_probes", n_probes, low=1, integer=True)
    check_number("floor", floor, low=0, open_low=True)
    if method == "logdet":
        return half_log_det(value_and_jacobian(generator, z)[1], floor)
    n, d = z.shape
    if method == "singular-value":
        if _is_exact(solver, d) and (d == 2 or hasattr(generator, "value_and_jacobian")):
            # a Jacobian with a graph is cheap: one pass instead of two
            dense = value_and_jacobian(generator, z)[1]
            return d * _log_length(dense @ _decompose(dense.detach()).vector[:, :, None], floor)
        found = smallest_singular_value(generator, z, solver=solver, n_iter=n_iter, rng=rng)
        return d * log_smallest(generator, z, found.vector, floor)
    probes = z.new_empty(n, d, n_probes).normal_(generator=_required(rng, "rng"))
    return d * _log_length(push_forward(generator, z, probes)[1] / math.sqrt(n_probes * d), floor)


def push_forward(
    generator: torch.nn.Module, z: torch.Tensor, tangents: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (n, D) and J times k tangents (n, d, k) per row, as (n, D, k), in one pass."""
    load_forward_rules()

    def forward(row: torch.Tensor) -> torch.Tensor:
        return generator(row).flatten(1)

    def along(tangent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, image, *_ = torch.func.jvp(forward, (z,), (tangent,))
        return x, image

    out_dims = (None, 2)
    return torch.func.vmap(along, in_dims=2, out_dims=out_dims)(tangents)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def load_forward_rules() -> None:
    """Let torch load its rules of forward mode, which warns of torch's own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


def _area(jacobian: torch.Tensor) -> torch.Tensor:
    """Return the area (n,) that two columns span; the gradient at 0 is 0."""
    a, b = jacobian.unbind(-1)
    if jacobian.shape[1] == 2:
        return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs()
    aa = a.square().sum(1).clamp(min=torch.finfo(a.dtype).tiny)
    rest = b - ((a * b).sum(1) / aa)[:, None] * a
    return aa.sqrt() * torch.linalg.vector_norm(rest, dim=1)


def _volume(jacobian: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log volume (n,), and a number in ``[s_1 / sqrt(d), s_1]`` (n,), detached."""
    d = jacobian.shape[-1]
    if d <= 2:
        volume = _area(jacobian) if d == 2 else torch.linalg.vector_norm(jacobian, dim=(1, 2))
        size = torch.linalg.vector_norm(jacobian.detach(), dim=(1, 2))
        return volume.log(), volume.detach() / size if d == 2 else size
    factor = torch.linalg.qr(jacobian).R
    eye = torch.eye(d, dtype=factor.dtype, device=factor.device).expand_as(factor)
    inverse = torch.linalg.solve_triangular(factor.detach(), eye, upper=True)
    volume = factor.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    return volume, 1 / torch.linalg.vector_norm(inverse, dim=(1, 2))


def _clamped_volume(jacobian: torch.Tensor, floor: float) -> torch.Tensor:
    """Return ``sum_i log max(s_i, floor)`` (n,), with u and v of ``s_i = u_i . J v_i`` held fixed.

    The gradient is exact, and finite where values coincide or vanish.
    """
    finite, clean = _finite(jacobian)
    u, _, vh = torch.linalg.svd(clean.detach(), full_matrices=False)
    values = (u * (clean @ vh.mT)).sum(1)
    return values.clamp(min=floor).log().sum(1).masked_fill(~finite, math.nan)


def _decompose(jacobian: torch.Tensor) -> SmallestSingularValue:
    _check_tall(jacobian.shape)
    finite, clean = _finite(jacobian)
    if jacobian.shape[-1] == 2:
        value = singular_values(clean)[:, 0]
        a, b = clean.unbind(-1)
        difference = a.square().sum(1) - b.square().sum(1)
        angle = torch.atan2(2 * (a * b).sum(1), difference) / 2  # of the largest one's vector
        vector = torch.stack([-angle.sin(), angle.cos()], 1)
    else:
        _, values, vh = torch.linalg.svd(clean, full_matrices=False)
        value, vector = values[:, -1], vh[:, -1]
    value = value.masked_fill(~finite, math.nan)
    pulled = (jacobian.mT @ (jacobian @ vector[:, :, None]))[:, :, 0]
    return SmallestSingularValue(value, vector, _residual(pulled, value, vector))


def _iterate(
    generator: torch.nn.Module, z: torch.Tensor, n_iter: int, rng: torch.Generator
) -> SmallestSingularValue:
    """Single-vector LOBPCG, batched over z."""

    def push(tangents: torch.Tensor) -> torch.Tensor:
        return push_forward(generator, z, tangents)[1]

    x, pull, *_ = torch.func.vjp(lambda row: generator(row).flatten(1), z)
    _check_tall((*x.shape, z.shape[1]))
    v = normalize(torch.empty_like(z).normal_(generator=rng), dim=1)
    move = torch.empty_like(z).normal_(generator=rng)
    image = push(v[:, :, None])[:, :, 0]
    for _ in range(n_iter if z.shape[1] > 1 else 0):
        gradient = pull(image)[0] - image.square().sum(1, keepdim=True) * v
        v, move, image = _improve(v, gradient, move, image, push)
    image = push(v[:, :, None])[:, :, 0]
    value = torch.linalg.vector_norm(image, dim=1)
    return SmallestSingularValue(value, v, _residual(pull(image)[0], value, v))


def _improve(
    v: torch.Tensor,
    gradient: torch.Tensor,
    move: torch.Tensor,
    image: torch.Tensor,
    push: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best v in the span of v, gradient and move, the move there, and J v."""
    tiny = torch.finfo(v.dtype).tiny
    directions = torch.stack([v, normalize(gradient, dim=1, eps=tiny), move], 2)[:, :, : v.shape[1]]
    # Q is orthonormal whatever the rank: where a direction is lost, another takes its place
    others = torch.linalg.qr(directions).Q[:, :, 1:]
    images = torch.cat([image[:, :, None], push(others)], 2)
    finite, clean = _finite(images)
    # through R: the Gram matrix would square the condition number
    weights = torch.linalg.svd(torch.linalg.qr(clean, mode="r").R).Vh[:, -1]
    new_move = (others @ weights[:, 1:, None])[:, :, 0]
    new_v = weights[:, :1] * v + new_move
    size = torch.linalg.vector_norm(new_v, dim=1, keepdim=True)
    new_image = (clean @ weights[:, :, None])[:, :, 0] / size
    lower = torch.linalg.vector_norm(new_image, dim=1) <= torch.linalg.vector_norm(image, dim=1)
    kept = ~(finite & lower)[:, None]
    return (
        torch.where(kept, v, new_v / size),
        torch.where(kept, move, new_move),
        torch.where(kept, image, new_image),
    )


def _log_length(images: torch.Tensor, floor: float) -> torch.Tensor:
    """Return the logarithm of the Frobenius norm (n,); below the floor it is constant."""
    return torch.linalg.vector_norm(images, dim=(1, 2)).clamp(min=floor).log()


def _residual(pulled: torch.Tensor, value: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(pulled - value.square()[:, None] * vector, dim=1)


def _finite(matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which matrices are finite (n,), and all with the others set to 0."""
    finite = matrices.detach().isfinite().flatten(1).all(1)
    return finite, torch.where(finite[:, None, None], matrices, 0.0)


def _is_exact(solver: str, d: int) -> bool:
    return solver == "exact" or (solver == "auto" and d <= MOST_EXACT)


def _required(rng: torch.Generator | None, name: str) -> torch.Generator:
    if not isinstance(rng, torch.Generator):
        raise TypeError(
            f"{name} must be a torch.Generator, got {rng!r}. Random directions are drawn from it."
        )
    return rng


def _check_latent(z: torch.Tensor) -> None:
    if not isinstance(z, torch.Tensor):
        raise TypeError(
            f"z must be a torch.Tensor (n, d), got {type(z).__name__}. Use torch.from_numpy."
        )
    if z.ndim != 2 or z.shape[1] < 1:
        raise ValueError(
            f"z must be a matrix (n, d) with d >= 1, got shape {tuple(z.shape)}. Give one latent "
            "point per row."
        )


def _check_tall(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or not 1 <= shape[2] <= shape[1]:
        raise ValueError(
            f"jacobian must have shape (n, D, d) with D >= d >= 1, got {tuple(shape)}. Lower the "
            "latent dimension to at most the number of outputs."
        )
