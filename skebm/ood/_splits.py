"""Which rows fit and which are held out, and the seeds of both."""

from __future__ import annotations

__all__ = [
    "LARGEST_SEED",
    "check_split",
    "fit_and_hold_out",
    "own_random_state",
    "seeded_clone",
    "split_rows",
]

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state

from skebm._components import check_choice, check_number
from skebm._tables import n_rows, take_rows
from skebm.ood._base import check_prefit

LARGEST_SEED = np.iinfo(np.int32).max


def check_split(detector: Any) -> None:
    """Raise the house's error unless the parameters of a split are fit."""
    check_choice("prefit", detector.prefit, (False, True))
    fraction = detector.calibration_fraction
    check_number("calibration_fraction", fraction, low=0, high=0.9, open_low=True)


def own_random_state(random_state: Any) -> np.random.RandomState:
    """Return scikit-learn's ``random_state``; None is fresh entropy, not numpy's global state."""
    return np.random.RandomState() if random_state is None else check_random_state(random_state)


def seeded_clone(
    estimator: BaseEstimator, random: np.random.RandomState, *, replace: bool = False
) -> Any:
    """Return an unfitted copy; each ``random_state`` in it that is None becomes a drawn seed.

    Parameters
    ----------
    estimator : BaseEstimator
        With its parameters, nested ones too.
    random : numpy.random.RandomState
        Draws the seeds.
    replace : bool, default=False
        Draw one for each ``random_state`` that is given, too.

    Returns
    -------
    BaseEstimator
        The copy.
    """
    copy = clone(estimator)
    params = copy.get_params()
    names = [name for name in sorted(params) if name.split("__")[-1] == "random_state"]
    seeds = {name: int(random.randint(LARGEST_SEED)) for name in names}
    return copy.set_params(**{n: s for n, s in seeds.items() if replace or params[n] is None})


def split_rows(X: Any, fraction: float, random: np.random.RandomState) -> tuple[Any, Any]:
    """Return the rows to fit to and those to hold out, both in the order of X, at least one each.

    Parameters
    ----------
    X : ndarray or data frame of shape (n, d)
        Rows, at least 2.
    fraction : float
        Share to hold out, dimensionless.
    random : numpy.random.RandomState
        Draws the rows.

    Returns
    -------
    tuple of ndarray or data frame
        Rows of the kind of X.
    """
    n = n_rows(X)
    order = random.permutation(n)
    n_held = min(max(round(fraction * n), 1), n - 1)
    held, rest = np.sort(order[:n_held]), np.sort(order[n_held:])
    return take_rows(X, rest), take_rows(X, held)


def fit_and_hold_out(detector: Any, X: Any) -> tuple[Any, Any]:
    """Fit a copy of ``detector.estimator`` to a part of X, or take the fitted one as it is.

    Parameters
    ----------
    detector : Detector
        Has ``estimator``, ``calibration_fraction``, ``prefit`` and ``random_state``.
    X : ndarray or data frame of shape (n, d)
        Rows, at least 2.

    Returns
    -------
    estimator : estimator
        Fitted.
    held_out : ndarray or data frame of shape (m, d)
        The rows that it has not seen; with ``prefit`` all rows.
    """
    if detector.prefit:
        check_prefit(detector.estimator)
        return detector.estimator, X
    random = own_random_state(detector.random_state)
    rest, held = split_rows(X, detector.calibration_fraction, random)
    return seeded_clone(detector.estimator, random).fit(rest), held
