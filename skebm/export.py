"""Fitted densities as files of ONNX, which run without skebm."""

from __future__ import annotations

__all__ = ["to_onnx"]

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch.distributions import Distribution

from skebm._disk import replacing
from skebm._surroundings import own_settings
from skebm.estimators._base import DensityEstimator
from skebm.fitted import FittedDensity
from skebm.fitted.density import LARGEST

OPSET = 18
aten = torch.ops.aten


def to_onnx(estimator: Any, path: str | Path) -> None:
    """Write a fitted density as a file of ONNX, which onnxruntime alone runs.

    Its input ``X`` takes rows (n, d) of float64 in the units of the training table, for any n. Its
    first output, ``log_density`` (n,), is ``score_samples(X)``, nats; the second, ``decision``
    (n,), is ``decision_function(X)``, nats above the threshold.

    Parameters
    ----------
    estimator : object
        A fitted density estimator of skebm.
    path : str or Path
        Where the file is written, whole or not at all.

    Raises
    ------
    ImportError
        If onnx or onnxscript is not installed.
    TypeError
        If `estimator` is none of skebm's density estimators, or torch cannot export its energy or
        its base.
    ValueError
        If it was fitted to columns of codes, lattices or dates.

    Notes
    -----
    Outputs agree with the estimator's to 1e-5 (1 + size), also far away from the training rows. All
    is computed in double precision, but for operations that onnxruntime has in single precision
    alone, convolutions above all. Rows with missing or infinite values get NaN. A kernel base holds
    n numbers for each of its centers: pass long tables in pieces.

    Examples
    --------
    >>> import importlib.util, pathlib, tempfile
    >>> import numpy as np
    >>> from skebm import NCEDensity
    >>> from skebm.export import to_onnx
    >>> est = NCEDensity(max_iter=25, random_state=0).fit(np.random.RandomState(0).randn(100, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "density.onnx")
    ...     if importlib.util.find_spec("onnxscript"):
    ...         to_onnx(est, path)
    """
    density = _density_of(estimator)
    try:
        import onnxscript  # noqa: F401  # which torch asks for, and which needs onnx
    except ImportError as error:
        raise ImportError(
            "to_onnx needs onnx and onnxscript. Install them with `pip install skebm[onnx]`."
        ) from error
    with own_settings(), _unvalidated(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own graphs
        written = _exported(_Scores(density, float(estimator.offset_)).eval(), density.n_features)
    with replacing(path) as file:
        file.write(written)


class _Scores(torch.nn.Module):
    """Log density and decision of rows, in double precision on the CPU."""

    def __init__(self, density: FittedDensity, offset: float) -> None:
        super().__init__()
        self.model, _ = copy.copy(density).to(torch.device("cpu")).doubled()
        self.energy, self.base = self.model.energy, self.model.base  # as modules
        self.transform = density.transform
        log_z = 0.0 if density.log_partition is None else density.log_partition.value
        numbers = torch.tensor([log_z, offset, LARGEST], dtype=torch.float64)
        self.log_z, self.offset, self.largest = numbers

    def forward(self, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map rows (n, d) in the units of X to two of (n,)."""
        z, log_slope = self.transform.by_tensors(X)
        value = log_slope - self.model.potential(z) - self.log_z
        value = torch.where(value.isnan(), -self.largest, value)
        value = value.clamp(-self.largest, self.largest)
        value = value + (X - X).sum(1)  # nan where a row is not finite
        return value, value - self.offset


def _density_of(estimator: Any) -> FittedDensity:
    if not isinstance(estimator, DensityEstimator):
        raise TypeError(
            "estimator must be a density estimator of skebm, got "
            f"{type(estimator).__name__}. Pass the one inside, and what it is given."
        )
    check_is_fitted(estimator)
    if getattr(estimator, "schema_", None) is not None:
        raise ValueError(
            "estimator must be fitted to columns of plain numbers, got some of codes, lattices or "
            f"dates ({', '.join(map(str, estimator.schema_.special[:3]))}). Fit it to an array of "
            "numbers, or call them 'continuous' in columns."
        )
    return estimator.density_


def _exported(scores: _Scores, n_features: int) -> bytes:
    """Return the file."""
    from torch.fx.experimental.const_fold import split_const_subgraphs

    rows = torch.zeros(3, n_features, dtype=torch.float64)
    shapes = ({0: torch.export.Dim("n")},)
    try:
        program = torch.export.export(scores, (rows,), dynamic_shapes=shapes)
        module = program.run_decompositions(DECOMPOSED).module()
        _hold_numbers(module)
        # what follows from parameters alone, a determinant say, need not be an operation of ONNX
        module = split_const_subgraphs(module)
        module.run_folding()
        written = torch.onnx.export(
            module.eval(),
            (rows,),
            dynamic_shapes=shapes,
            input_names=["X"],
            output_names=["log_density", "decision"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert written is not None  # as it is without a path
        return written.model_proto.SerializeToString()
    except Exception as error:
        names = [type(part).__name__ for part in (scores.energy, scores.base)]
        raise TypeError(
            "estimator must have an energy and a base that torch can export to ONNX, got "
            f"{names[0]} and {names[1]}, which raised {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]} Use operations of torch that do not branch on "
            "values."
        ) from error


def _hold_numbers(module: torch.fx.GraphModule) -> None:
    """Put the second terms and factors that are numbers into tensors.

    The exporter would round them to single precision.
    """
    for node in list(module.graph.nodes):
        if node.target in BINARY and isinstance(node.args[1], float):
            name = f"number_{node.name}"
            module.register_buffer(name, torch.tensor(node.args[1], dtype=torch.float64))
            with module.graph.inserting_before(node):
                node.update_arg(1, module.graph.get_attr(name))
    module.recompile()


@contextmanager
def _unvalidated() -> Iterator[None]:
    """Let distributions of torch not look at the values they are given."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def _log1p(x: torch.Tensor) -> torch.Tensor:
    """Return log(1 + x), exact for small x too."""
    above = 1 + x
    return torch.where(above == 1, x, above.log() * x / (above - 1))


def _logaddexp(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return log(exp(a) + exp(b)) without overflow."""
    return torch.maximum(a, b) + (1 + (-(a - b).abs()).exp()).log()


def _log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Return -log(1 + exp(-x)) without overflow."""
    return -torch.nn.functional.softplus(-x)


def _searchsorted(
    knots: torch.Tensor, value: torch.Tensor, *, right: bool = False, **others: Any
) -> torch.Tensor:
    """Return how many knots are below."""
    knots, value = knots[..., None, :], value[..., None]
    return (knots <= value if right else knots < value).sum(-1)


def _solve_triangular(
    A: torch.Tensor, B: torch.Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> torch.Tensor:
    """Solve by the inverse of A, which mostly is a constant."""
    return torch.linalg.inv(A) @ B if left else B @ torch.linalg.inv(A)


def _in_single(operation: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Return an operation that computes in single precision what it is given in double."""

    def decomposed(*args: Any, **kwargs: Any) -> Any:
        if args[0].dtype != torch.float64:
            return NotImplemented
        args = tuple(a.float() if isinstance(a, torch.Tensor) else a for a in args)
        return operation(*args, **kwargs).double()

    return decomposed


BINARY = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
SINGLE = """acos acosh asin asinh atan atanh avg_pool1d avg_pool2d avg_pool3d conv1d conv2d conv3d
    cosh erf gelu group_norm sinh tan"""
DECOMPOSED: dict[Any, Callable[..., Any]] = {
    aten.log1p.default: _log1p,  # ONNX has the naive ones
    aten.logaddexp.default: _logaddexp,
    aten.log_sigmoid.default: _log_sigmoid,
    aten.searchsorted.Tensor: _searchsorted,  # and none of these
    aten.linalg_solve_triangular.default: _solve_triangular,
    **{op: _in_single(op) for op in (getattr(aten, name).default for name in SINGLE.split())},
}
