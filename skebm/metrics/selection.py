"""Scorers for scikit-learn's searches: held-out log likelihood with its errors, and novelty."""

from __future__ import annotations

__all__ = ["NoveltyScorer", "best_within_error", "log_likelihood_scorer"]

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import OutlierMixin
from sklearn.utils import check_array

from skebm._components import Component, check_choice, check_number, check_random_state
from skebm._tables import table_like
from skebm._warn import warn
from skebm.exceptions import SelectionWarning
from skebm.inside import read_scores, scorers
from skebm.metrics.ood import ood_metrics

KINDS = ("permuted", "uniform", "jittered", "mixed")
EQUAL = 1e-9  # nats; models that differ differ by more
WIDENING = 0.1  # of a column's range, half of it at each end


def log_likelihood_scorer(estimator: Any, X: Any, y: Any = None) -> dict[str, float]:
    r"""Return the mean log density of held-out rows, and the errors of that mean.

    Parameters
    ----------
    estimator : estimator
        Fitted, with ``score_samples`` in nats; or a Pipeline that ends in one, a search, an
        ensemble or a detector whose scores are its log density.
    X : array-like of shape (n, d)
        Held-out rows.
    y : None
        Ignored.

    Returns
    -------
    dict of str to float
        Nats, for densities in the space of the last step of a Pipeline:

        - ``score``: mean log density per row, larger is better;
        - ``stderr``: its standard error over the rows; infinite below two rows, or where a row has
          density 0;
        - ``log_partition_stderr``: standard error of the model's log Z, the same for every row; 0
          for models that are normalized in closed form. That of an ensemble of K is
          :math:`\sqrt{\sum_k s_k^2} / K`, as if all members had the same share in each row.

    Raises
    ------
    TypeError
        If the estimator has no ``score_samples``, or they are no log densities: those of
        LikelihoodRatioDetector, ScoreNormDetector and TypicalityDetector, and of scikit-learn's
        outlier detectors. `NoveltyScorer` takes these.
    ValueError
        If the model, or one inside it, is unnormalized (its ``log_partition_`` is None), or
        ``score_samples`` does not return one number per row, below infinity.

    Notes
    -----
    Pass it as ``scoring`` to ``GridSearchCV`` or ``RandomizedSearchCV``, with
    ``refit=best_within_error``, or to ``cross_validate``; tables of results then have
    ``mean_test_score`` and the like. ``cross_val_score`` and ``HalvingRandomSearchCV`` take
    one number only: leave `scoring` out there, and the estimator's own ``score`` is the same mean.

    Of the search itself, `refit` has to be given, ``search.score`` fails and there is no
    ``best_score_`` (scikit-learn wants the name of a metric for both): use
    ``log_likelihood_scorer(search.best_estimator_, X_new)``, or ``search.best_estimator_.score``,
    and ``search.cv_results_["mean_test_score"][search.best_index_]``. ``rank_test_stderr`` and
    ``rank_test_log_partition_stderr`` mean nothing: the largest error gets rank 1.

    Log densities compare candidates of one space. A scaler that is fitted alike for all candidates
    shifts all of them by the same amount; a search over scalers compares nothing.

    Examples
    --------
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.datasets import two_moons
    >>> from skebm.metrics import log_likelihood_scorer
    >>> X = two_moons().sample(600, random_state=0)
    >>> model = GaussianMixture(8, random_state=0).fit(X[:300])
    >>> result = log_likelihood_scorer(model, X[300:])
    >>> print(f"{result['score']:.1f} +- {result['stderr']:.1f}, {result['log_partition_stderr']}")
    -1.2 +- 0.1, 0.0
    """
    _check_log_density(estimator)
    values = read_scores(estimator, X)
    if not np.isfinite(values).all():
        mean, stderr = float("-inf"), float("inf")
    elif len(values) < 2:
        mean, stderr = float(values.mean()), float("inf")
    else:
        mean, stderr = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    return {"score": mean, "stderr": stderr, "log_partition_stderr": _log_z_error(estimator)}


def best_within_error(cv_results: Mapping[str, Any]) -> int:
    """Return the candidate of largest mean test score; warn if its lead is within its error.

    Parameters
    ----------
    cv_results : dict of str to array
        ``cv_results_`` of a search, with ``mean_test_score`` and ``split<k>_test_score``; with
        `log_likelihood_scorer` also ``split<k>_test_log_partition_stderr``.

    Returns
    -------
    int
        Index of the best candidate, the first of equal ones; candidates whose fit failed are left
        out.

    Raises
    ------
    ValueError
        If there are no mean test scores, or none of them is finite.

    Warns
    -----
    SelectionWarning
        If another candidate is behind by no more than the error of the difference.

    Notes
    -----
    Pass it as ``refit`` to ``GridSearchCV`` or ``RandomizedSearchCV``. With a function as `refit`
    scikit-learn sets no ``best_score_``, and ``search.score`` fails where `scoring` returns several
    numbers: use ``search.best_estimator_.score``, and see `log_likelihood_scorer`. The error of a
    difference is paired: the standard error over splits of the differences between two candidates
    on the same split, combined in quadrature with the errors of both means that come from log Z.
    With one split, the two standard errors over rows take the place of the paired one.

    It leans to warning where log Z errors are independent between splits, for the scatter of the
    differences has them already; they are added because models of one seed may share them. It
    leans the other way because training sets of different folds overlap.

    A difference within its error is no failure: take the simpler or the faster candidate then.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.metrics import best_within_error
    >>> splits = {"split0_test_score": [-2.0, -1.0], "split1_test_score": [-2.2, -1.1]}
    >>> best_within_error({"mean_test_score": np.array([-2.1, -1.05]), **splits})
    1
    """
    means = _mean_scores(cv_results)
    best = int(np.argmax(means))
    others = np.flatnonzero((np.arange(len(means)) != best) & (means > -np.inf))
    if len(others):
        _warn_if_close(cv_results, means, best, others)
    return best


class NoveltyScorer(Component):
    """Label-free novelty criterion: AUROC of held-out rows against novelties made from them.

    Parameters
    ----------
    kind : {"permuted", "uniform", "jittered", "mixed"}, default="permuted"
        How the pseudo-novelties are made:

        - ``"permuted"``: each column drawn from its own values, independently of the others: right
          marginals, no dependence;
        - ``"uniform"``: in the box of the rows, widened by 10 % of its range, half at each end;
        - ``"jittered"``: rows with Gaussian noise of one standard deviation of the column in a
          random half of the columns;
        - ``"mixed"``: a third of each.
    n_novelties : int, default=1000
        Pseudo-novelties. More lower the noise of the criterion: its standard error from them is at
        most ``0.5 / sqrt(n_novelties)``.
    random_state : int, RandomState or None, default=0
        Seed. With an int all candidates of a search are held to the same novelties on a split.

    Raises
    ------
    ValueError, TypeError
        When called, if a parameter or X is unfit, or the estimator has no ``score_samples``. A
        search that was given the class in place of an instance gets a TypeError as well.

    Notes
    -----
    A scorer: pass an instance as ``scoring`` to ``GridSearchCV``, ``HalvingRandomSearchCV`` or
    ``cross_val_score``. It needs an order of the rows only, so unnormalized models and
    detectors that are no densities (IsolationForest) can be compared.

    It rewards finding the novelties that it makes, and real ones may differ. ``"permuted"`` sees
    dependence between columns only: where they are independent every model gets about 0.5, and a
    shift of single columns does not count. In many columns ``"uniform"`` rows are far from the data
    and most models get 1, which ranks nothing. ``"jittered"`` rows favor models that are as sharp
    as one standard deviation, no sharper. Novelties may fall among normal rows, so that the best
    possible value may be far below 1. Where log likelihoods can be had, look at both.

    References
    ----------
    .. [1] T. Hastie, R. Tibshirani and J. Friedman, The Elements of Statistical Learning, 2nd
       edition, Springer, 2009. Section 14.2.4.

    Examples
    --------
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skebm.datasets import two_moons
    >>> from skebm.metrics import NoveltyScorer
    >>> X = two_moons().sample(600, random_state=0)
    >>> model = GaussianMixture(random_state=0)
    >>> search = GridSearchCV(model, {"n_components": [1, 8]}, scoring=NoveltyScorer(), cv=3)
    >>> search.fit(X).best_params_
    {'n_components': 8}
    """

    def __init__(
        self, kind: str = "permuted", n_novelties: int = 1000, random_state: Any = 0
    ) -> None:
        if hasattr(kind, "fit"):  # a search calls what it is given with an estimator
            raise TypeError(
                "scoring must be an instance, got the class NoveltyScorer. Pass NoveltyScorer()."
            )
        self.kind = kind
        self.n_novelties = n_novelties
        self.random_state = random_state

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Return the probability that a held-out row outscores a pseudo-novelty, ties half.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``score_samples``, higher for more normal rows.
        X : array-like of shape (n, d)
            Held-out rows.
        y : None
            Ignored.

        Returns
        -------
        float
            AUROC in [0, 1], dimensionless; larger is better.
        """
        check_choice("kind", self.kind, KINDS)
        check_number("n_novelties", self.n_novelties, low=1, integer=True)
        rows = check_array(X, dtype=np.float64, ensure_min_samples=2, input_name="X")
        if self.kind in ("permuted", "mixed") and rows.shape[1] < 2:
            raise ValueError(
                f"X must have at least 2 columns with kind={self.kind!r}, got 1. "
                "Use 'uniform' or 'jittered': a permuted column is the same column."
            )
        novelties = self._novelties(rows, check_random_state(self.random_state))
        scores = [read_scores(estimator, table) for table in (X, table_like(X, novelties))]
        lowest = np.finfo(np.float64).min  # density 0 is a rank like any other
        return float(ood_metrics(*(np.maximum(s, lowest) for s in scores))["auroc"])

    def _novelties(self, rows: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        kinds = KINDS[:3] if self.kind == "mixed" else (self.kind,)
        shares = np.array_split(np.arange(self.n_novelties), len(kinds))
        parts = [MAKERS[kind](rows, len(s), rng) for kind, s in zip(kinds, shares, strict=True)]
        return np.concatenate(parts)


def _permuted(rows: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    d = rows.shape[1]
    return rows[rng.randint(len(rows), size=(n, d)), np.arange(d)]


def _uniform(rows: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    low, high = rows.min(axis=0), rows.max(axis=0)
    margin = 0.5 * WIDENING * (high - low)
    return rng.uniform(low - margin, high + margin, size=(n, rows.shape[1]))


def _jittered(rows: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    d = rows.shape[1]
    moved = rng.uniform(size=(n, d)).argsort(axis=1) < (d + 1) // 2
    noise = rng.standard_normal((n, d)) * rows.std(axis=0)
    return rows[rng.randint(len(rows), size=n)] + moved * noise


MAKERS = {"permuted": _permuted, "uniform": _uniform, "jittered": _jittered}


def _check_log_density(estimator: Any) -> None:
    kind = type(estimator)
    foreign = issubclass(kind, OutlierMixin) and kind.__module__.startswith("sklearn.")
    if foreign or not getattr(estimator, "scores_are_log_densities", True):
        raise TypeError(
            f"estimator must have log densities for scores, got {kind.__name__}. Use "
            "scoring=NoveltyScorer(), which needs an order of the rows only."
        )
    for inner in scorers(estimator):
        _check_log_density(inner)


def _log_z_error(estimator: Any) -> float:
    """Return the standard error of log Z, nats; 0 for what has no log Z."""
    errors = [_log_z_error(inner) for inner in scorers(estimator)]
    if errors:
        return float(np.linalg.norm(errors)) / len(errors)
    log_z = getattr(estimator, "log_partition_", 0.0)
    if log_z is None:
        raise ValueError(
            f"estimator must be normalized, got {type(estimator).__name__} with log_partition=None."
            " Set log_partition to a method, 'auto' say, or score with skebm.stein.stein_score."
        )
    return float(getattr(log_z, "stderr", 0.0))


def _mean_scores(cv_results: Mapping[str, Any]) -> np.ndarray:
    """Return the mean test scores, minus infinity for candidates that failed."""
    if "mean_test_score" not in cv_results:
        names = sorted(name for name in cv_results if name.startswith("mean_test"))
        raise ValueError(
            f"cv_results must have mean_test_score, got {names}. Use scoring=log_likelihood_scorer."
        )
    means = np.array(cv_results["mean_test_score"], dtype=np.float64)
    means[~np.isfinite(means)] = -np.inf
    if not np.any(means > -np.inf):
        raise ValueError(
            f"cv_results must have a finite mean_test_score, got {len(means)} that are not. Set "
            "error_score='raise' to see why."
        )
    return means


def _warn_if_close(
    cv_results: Mapping[str, Any], means: np.ndarray, best: int, others: np.ndarray
) -> None:
    lead = means[best] - means[others]
    paired, log_z = _paired_error(cv_results, best, others), _log_z_errors(cv_results)
    log_z = np.hypot(log_z[best], log_z[others])
    error = np.hypot(paired, log_z)
    i = int(np.argmin(lead - error))
    if lead[i] > error[i]:
        return
    same = int(np.count_nonzero((lead < EQUAL) & (paired < EQUAL)))
    equal = (
        f" {same} of them score the same in every split, as models do that all keep their base "
        "(energy_kept_ is False)."
        if same
        else ""
    )
    warn(
        f"The best candidate ({best}) must lead by more than the error of the difference, got "
        f"{lead[i]:.3g} against {error[i]:.3g} ({paired[i]:.3g} over splits, {log_z[i]:.3g} from "
        f"log Z) for candidate {others[i]}; {np.count_nonzero(lead <= error)} of {len(others)} "
        f"others are that close.{equal} Raise the samples of log_partition if its error "
        "dominates, give more folds or rows if not, or take the simplest of them.",
        SelectionWarning,
    )


def _splits(cv_results: Mapping[str, Any], metric: str) -> np.ndarray:
    """Return a metric per split and candidate, (n_splits, n_candidates); no rows without it."""
    names = [n for n in cv_results if n.startswith("split") and n.endswith(f"_test_{metric}")]
    names = [name for name in names if name == f"{name.split('_')[0]}_test_{metric}"]
    return np.array([np.asarray(cv_results[name], dtype=np.float64) for name in names])


def _paired_error(cv_results: Mapping[str, Any], best: int, others: np.ndarray) -> np.ndarray:
    """Standard error of the mean difference to the best, for each other candidate."""
    scores = _splits(cv_results, "score")
    if len(scores) > 1:
        differences = scores[:, [best]] - scores[:, others]
        return differences.std(axis=0, ddof=1) / np.sqrt(len(scores))
    rows = _splits(cv_results, "stderr")
    return np.hypot(rows[0, best], rows[0, others]) if len(rows) else np.zeros(len(others))


def _log_z_errors(cv_results: Mapping[str, Any]) -> np.ndarray:
    """Error of each candidate's mean score from its splits' log Z, (n_candidates,)."""
    errors = _splits(cv_results, "log_partition_stderr")
    if not len(errors):
        return np.zeros(len(cv_results["mean_test_score"]))
    return np.sqrt(np.square(errors).sum(axis=0)) / len(errors)
