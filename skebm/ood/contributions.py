"""Which columns make a row unlikely."""

from __future__ import annotations

__all__ = ["feature_contributions"]

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils import check_array

from skebm._components import check_choice, check_number
from skebm._tables import as_frame, n_rows, naming_columns, table_like
from skebm.inside import read_scores, unwrap
from skebm.ood._base import draw_rows
from skebm.ood._raw_columns import FEWEST, Raw, column_gradients, is_raw, raw_gains
from skebm.stein._scores import evaluate_score

METHODS = ("conditional", "mode", "gradient")
N_REPLACED = 32  # draws of a number given the rest
N_DRAWN = 256  # reference rows drawn from an estimator that can
WIDTH = 4.0  # standard deviations of a conditional density that get candidates
BLOCK_VALUES = 2**20  # scored at once: 8 MiB

Table = tuple[np.ndarray, np.ndarray]  # values and their log densities, (p, k) each
Scored = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def feature_contributions(
    estimator: Any,
    X: Any,
    *,
    method: str = "conditional",
    reference: Any = None,
    n_grid: int = 16,
    random_state: Any = None,
) -> np.ndarray:
    r"""Return what each row would gain in log density if each column alone were replaced.

    With :math:`x_{-j}` the other columns of a row, ``"conditional"`` is
    :math:`E_{v \sim p(x_j | x_{-j})}[\log p(v, x_{-j})] - \log p(x)` and ``"mode"`` is
    :math:`\max_v \log p(v, x_{-j}) - \log p(x)`; ``"gradient"`` is
    :math:`s_j(x) (m_j - x_j) / 2` with the score :math:`s = \nabla \log p` and the median m of
    `reference`.

    Parameters
    ----------
    estimator : estimator
        Fitted, with ``score_samples``: a density, a Pipeline, a detector. ``"gradient"`` needs
        ``score_function`` (every density of skebm), a Gaussian mixture or KernelDensity (Gaussian
        kernel) of scikit-learn, or a Pipeline of column scalers and one of these (for data frames
        that it encodes, of whatever transforms each column by itself); it sees through searches,
        ThresholdDetector and ConformalNoveltyDetector.
    X : array-like of shape (n, d)
        Rows to explain, as the estimator takes them: a pipeline's may be data frames with text,
        categories and missing values.
    method : {"conditional", "mode", "gradient"}, default="conditional"
        What a column is replaced by: its values given the others, on average; the likeliest of
        them; or, fast and to first order, its median.
    reference : array-like of shape (m, d), default=None
        Rows, at least 4, whose columns give the candidate values: the training rows, say. None
        takes 256 draws of the estimator's own ``sample``; estimators without one (pipelines, most
        detectors) need it.
    n_grid : int, default=16
        Candidates for each column, at least 4: quantiles of `reference` from its smallest to its
        largest value. As many again are added around the best of them, in two steps. More find
        narrower conditional densities, and integrate them better.
    random_state : int, RandomState or None, default=None
        Seed of the draws where `reference` is None. None takes the estimator's own.

    Returns
    -------
    ndarray of shape (n, d)
        By input column, in the order of X, whatever a pipeline makes of them. Nats (for detectors,
        units of ``score_samples``); the largest of a row is at the column that
        is hardest to reconcile with the others. Infinite where a column alone takes the row out of
        the support, 0 where no candidate of the column brings it back.

    Raises
    ------
    TypeError
        If the estimator has no ``score_samples``, or ``"gradient"`` finds no score.
    ValueError
        If X or `reference` is unfit or has other columns, or there is no reference.

    Notes
    -----
    ``"mode"`` is at least 0; ``"conditional"`` is below 0 for values more typical than the average
    draw. For a Gaussian and a column at z standard deviations from its mean given the others, they
    are :math:`z^2 / 2` and :math:`(z^2 - 1) / 2`. ``"gradient"`` takes the log density along the
    step to the median for a parabola: for a Gaussian its contributions, of either sign, add up to
    the drop in log density from the median to the row; those of the others do not add up. None
    depends on the units of the columns.

    The conditional densities are integrated by the trapezoid rule over the candidates. Replacements
    stay within the range of `reference`, and a conditional mode much narrower than the spacing of
    the candidates may be missed. Whole-number columns get candidates between their values.

    A column of text or categories, or of whole numbers that a pipeline encodes as such, is replaced
    by each of its values in `reference` as a whole, all its dummies at once; its conditional
    density is one over these values. ``"gradient"`` adds up what its dummies contribute. Missing
    values are replaced, too, and are no candidates.

    A density that was itself fitted to columns of codes (see its ``columns``) needs no `reference`:
    categories are summed over their levels, numbers averaged over 32 draws given the rest, and a
    value that many rows repeat counts as a category beside the others. ``"conditional"`` alone
    makes sense there; missing values contribute 0.

    Columns that depend strongly on a corrupted one are hard to reconcile too, but less. Two
    corrupted columns that fit each other may hide each other. ``"gradient"`` ranks well what is far
    from the median, and hardly sees a value that is odd given the others alone. On 100 benign rows
    of breast cancer, each with one column moved by 6 standard deviations, all three ranked that
    column first in at least 90 (Gaussian mixtures of 1 and 3 components).

    Cost: ``2 n d n_grid`` evaluations of the log density, in blocks of bounded memory;
    ``"gradient"`` takes one score at each row of X and of `reference`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.ood import feature_contributions
    >>> X = np.random.RandomState(0).randn(500, 3)
    >>> X[:, 1] += 3 * X[:, 0]
    >>> model = GaussianMixture(random_state=0).fit(X)
    >>> row = [[0.0, 3.0, 0.2]]  # its second column does not fit its first
    >>> print(feature_contributions(model, row, method="mode", reference=X).round(1))
    [[3.9 4.4 0.1]]
    """
    check_choice("method", method, METHODS)
    check_number("n_grid", n_grid, low=4, integer=True)
    density = _of_codes(estimator)
    if density is not None:
        check_choice("method", method, METHODS[:1])
        return code_contributions(density, X)
    if is_raw(estimator, X):
        return _of_raw(Raw(estimator, X, _raw_reference(estimator, X, reference)), method, n_grid)
    with naming_columns(X):
        rows = check_array(X, dtype=np.float64, input_name="X")
    _check_columns(estimator, rows)
    if method == "gradient":
        return _slopes(estimator, X, rows, _reference(estimator, X, reference, random_state))
    log_p = read_scores(estimator, table_like(X, rows))
    reference = _reference(estimator, X, reference, random_state)
    grid = np.quantile(reference, np.linspace(0, 1, n_grid), axis=0).T

    def scored(i: np.ndarray, j: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Log density of rows i with column j replaced by each of values (p, k): (p, k)."""
        replaced = np.repeat(rows[i], values.shape[1], axis=0)
        replaced[np.arange(len(replaced)), np.repeat(j, values.shape[1])] = values.ravel()
        return read_scores(estimator, table_like(X, replaced)).reshape(values.shape)

    n, d = rows.shape
    gains = np.empty(n * d)
    size = max(1, BLOCK_VALUES // (n_grid * d))
    for start in range(0, n * d, size):
        i, j = np.divmod(np.arange(start, min(start + size, n * d)), d)
        own = rows[i, j][:, None], log_p[i][:, None]
        values, log = _candidates(scored, i, j, own, grid, spread=method == "conditional")
        replaced = log.max(axis=1) if method == "mode" else _conditional_mean(values, log)
        gains[i * d + j] = _gain(replaced, log_p[i])
    return gains.reshape(n, d)


def _of_codes(estimator: Any) -> Any:
    """Return the density inside that was fitted to columns of codes, None where there is none."""
    steps, last = unwrap(estimator, detectors=True)
    density = getattr(last, "estimator_", last)
    return None if steps or getattr(density, "schema_", None) is None else density


def code_contributions(density: Any, X: Any) -> np.ndarray:
    """Return the contributions (n, d) of the columns of a table with codes."""
    schema, fitted = density.schema_, density.density_
    rows, _ = schema.encode(X)
    log_p = fitted.log_density(rows)
    out = np.zeros((len(rows), len(schema.columns)))
    for j, place in enumerate(schema.places):
        number = [p for p in place if p < schema.n_numbers]
        code = [p for p in place if p >= schema.n_numbers]
        exists = ~np.isnan(rows[:, place]).any(1)
        if code:
            out[:, j] = _of_code(fitted, schema, rows, place, code[0])
            if not number:  # a value never seen has next to no probability
                out[:, j] += schema.encode_unseen(X, j)
                continue
            exists &= rows[:, code[0]] == schema.n_levels[code[0] - schema.n_numbers] - 1
        some, k = np.flatnonzero(exists), number[0]
        if len(some):
            alone = rows[some]
            alone[:, k] = np.nan
            drawn = fitted.holes.draw(alone, N_REPLACED, None)[:, :, k]
            replaced = np.repeat(rows[some], N_REPLACED, axis=0)
            replaced[:, k] = drawn.ravel()
            mean = fitted.log_density(replaced).reshape(drawn.shape).mean(1)
            out[some, j] += mean - log_p[some]
    return out


def _of_code(fitted: Any, schema: Any, rows: np.ndarray, place: list[int], k: int) -> np.ndarray:
    """Return what a code's log probability would gain on average, 0 where it is missing: (n,)."""
    alone = rows.copy()
    alone[:, place] = np.nan
    log_share = fitted.log_proba(alone, k, schema.n_levels[k - schema.n_numbers])
    known = np.flatnonzero(~np.isnan(rows[:, k]))
    gain = np.zeros(len(rows))
    gain[known] = (np.exp(log_share) * log_share).sum(1)[known]
    gain[known] -= log_share[known, rows[known, k].astype(int)]
    return gain


def _of_raw(raw: Raw, method: str, n_grid: int) -> np.ndarray:
    """Contributions of input columns, whatever the pipeline makes of them, (n, d)."""
    if method == "gradient":
        return column_gradients(raw)

    def continuous(score: Any, own: np.ndarray, log_p: np.ndarray, grid: np.ndarray) -> np.ndarray:
        i = np.arange(len(own))
        spread = method == "conditional"
        start = own[:, None], score(own[:, None])
        scored: Scored = lambda i, j, values: score(values)  # noqa: E731
        grids = np.broadcast_to(grid, (1, len(grid)))
        values, log = _candidates(scored, i, 0 * i, start, grids, spread=spread)
        replaced = log.max(axis=1) if method == "mode" else _conditional_mean(values, log)
        return _gain(replaced, log_p)

    return raw_gains(raw, n_grid, method, continuous)


def _raw_reference(estimator: Any, X: Any, reference: Any) -> Any:
    """Return the reference rows, of the kind of X."""
    if reference is None:
        return _drawn(estimator, 0)
    frames = [as_frame(X), as_frame(reference)]
    names = [None if frame is None else frame.columns for frame in frames]
    if names[0] != names[1] or np.shape(reference)[1] != np.shape(X)[1]:
        raise ValueError(
            f"reference must have the columns of X, {names[0] or np.shape(X)[1]}, got "
            f"{names[1] or np.shape(reference)[1]}. Give them in the same order."
        )
    if n_rows(reference) < FEWEST:
        raise ValueError(
            f"reference must have at least {FEWEST} rows, got {n_rows(reference)}. Give the "
            "training rows."
        )
    return reference


def _candidates(
    scored: Scored, i: np.ndarray, j: np.ndarray, own: Table, grid: np.ndarray, spread: bool
) -> Table:
    """Add the grid, and then what is around its best, to a row's own value."""
    values, log = own
    for added in (None, _around_best, _over_the_bulk if spread else _around_best):
        new = added(values, log, grid.shape[1] // 2) if added else grid[j]
        values = np.concatenate([values, new], axis=1)
        log = np.concatenate([log, scored(i, j, new)], axis=1)
    return values, log


def _around_best(values: np.ndarray, log: np.ndarray, k: int) -> np.ndarray:
    """Return k values between the candidates next to the best one, (p, k)."""
    return _between(*_neighbors(values, log), k)


def _over_the_bulk(values: np.ndarray, log: np.ndarray, k: int) -> np.ndarray:
    """Return k values over the mean and `WIDTH` standard deviations around it, (p, k)."""
    below, above = _neighbors(values, log)
    values, _, weight = _weighted(values, log)
    mean = (weight * values).sum(axis=1, keepdims=True)
    width = WIDTH * np.sqrt((weight * np.square(values - mean)).sum(axis=1, keepdims=True))
    below = np.maximum(np.minimum(below, mean - width), values[:, :1])
    above = np.minimum(np.maximum(above, mean + width), values[:, -1:])
    return _between(below, above, k)


def _neighbors(values: np.ndarray, log: np.ndarray) -> Table:
    """Return the candidates below and above the best one, (p, 1) each; itself at an end."""
    best = np.take_along_axis(values, log.argmax(axis=1)[:, None], axis=1)
    below = np.where(values < best, values, -np.inf).max(axis=1, keepdims=True)
    above = np.where(values > best, values, np.inf).min(axis=1, keepdims=True)
    return np.where(np.isfinite(below), below, best), np.where(np.isfinite(above), above, best)


def _between(low: np.ndarray, high: np.ndarray, k: int) -> np.ndarray:
    return low + (high - low) * (np.arange(1, k + 1) / (k + 1))


def _weighted(values: np.ndarray, log: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the candidates; weigh them by density and trapezoid, to a sum of 1 if any has one."""
    order = values.argsort(axis=1)
    values, log = (np.take_along_axis(a, order, axis=1) for a in (values, log))
    best = log.max(axis=1, keepdims=True)
    padded = np.pad(values, ((0, 0), (1, 1)), mode="edge")
    weight = np.exp(log - np.where(np.isfinite(best), best, 0.0)) * (padded[:, 2:] - padded[:, :-2])
    total = weight.sum(axis=1, keepdims=True)
    return values, log, np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)


def _conditional_mean(values: np.ndarray, log: np.ndarray) -> np.ndarray:
    """Mean of log p under the density proportional to p on the candidates, (p,)."""
    _, log, weight = _weighted(values, log)
    mean = (weight * np.where(weight > 0, log, 0.0)).sum(axis=1)
    return np.where(weight.any(axis=1), mean, log.max(axis=1))


def _gain(replaced: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """Return the difference, and 0 where both densities are 0."""
    possible = replaced > -np.inf
    gain = np.zeros(len(log_p))
    gain[possible] = replaced[possible] - log_p[possible]
    return gain


def _slopes(estimator: Any, X: Any, rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Half the score times the step to the median: the trapezoid rule, if the slope there is 0."""
    table = table_like(X, np.concatenate([reference, rows]))  # a score of few rows is refused
    score = evaluate_score(estimator, table, "estimator")[1][len(reference) :]
    return 0.5 * score * (np.median(reference, axis=0) - rows)


def _check_columns(estimator: Any, rows: np.ndarray) -> None:
    d = getattr(estimator, "n_features_in_", rows.shape[1])
    if rows.shape[1] != d:
        raise ValueError(
            f"X must have the {d} columns that {type(estimator).__name__} was fitted to, got "
            f"{rows.shape[1]}. Give rows of the same table."
        )


def _reference(estimator: Any, X: Any, reference: Any, random_state: Any) -> np.ndarray:
    """Return the reference rows (m, d) in float64, drawn if there are none."""
    if reference is None:
        reference = _drawn(estimator, random_state)
    frames = [frame for frame in map(as_frame, (X, reference)) if frame is not None]
    if len(frames) == 2 and frames[0].columns != frames[1].columns:
        raise ValueError(
            f"reference must have the columns of X, {frames[0].columns}, got {frames[1].columns}. "
            "Give them in the same order."
        )
    rows = check_array(reference, dtype=np.float64, ensure_min_samples=4, input_name="reference")
    d = np.shape(X)[1]
    if rows.shape[1] != d:
        raise ValueError(
            f"reference must have the {d} columns of X, got {rows.shape[1]}. Give rows of the same "
            "table, the training rows say."
        )
    return rows


def _drawn(estimator: Any, random_state: Any) -> Any:
    if not hasattr(estimator, "sample"):
        raise ValueError(
            f"reference must be rows for an estimator without sample, got None with "
            f"{type(estimator).__name__}. Pass the training rows."
        )
    if random_state is None:
        random_state = getattr(estimator, "random_state", None)
    if random_state is None:  # scikit-learn would draw from the global state
        random_state = int(np.random.SeedSequence().generate_state(1)[0])
    return draw_rows(estimator, N_DRAWN, random_state)
