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

from skebm._components import check_choice, check_number, check_random_state
from skebm.ood._base import check_prefit
from skebm.ood._fitting import Given

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
    """Return an unfitted copy, with a drawn seed for each ``random_state`` in it that is None.

    With `replace`, for each that is given, too.
    """
    copy = clone(estimator)
    params = copy.get_params()
    names = [name for name in sorted(params) if name.split("__")[-1] == "random_state"]
    seeds = {name: int(random.randint(LARGEST_SEED)) for name in names}
    copy.set_params(**{n: s for n, s in seeds.items() if replace or params[n] is None})
    return copy  # set_params of a frozen estimator returns None


def split_rows(
    n: int, fraction: float, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows to fit to and to hold out, in order, at least one each."""
    order = random.permutation(n)
    n_held = min(max(round(fraction * n), 1), n - 1)
    return np.sort(order[n_held:]), np.sort(order[:n_held])


def fit_and_hold_out(detector: Any, given: Given) -> tuple[Any, Given]:
    """Return a fitted copy of ``detector.estimator``, and the rows that it has not seen.

    With ``prefit``, return the estimator as it is, and all rows.
    """
    if detector.prefit:
        check_prefit(detector.estimator)
        return detector.estimator, given
    random = own_random_state(detector.random_state)
    rest, held = split_rows(given.n, detector.calibration_fraction, random)
    copy = seeded_clone(detector.estimator, random)
    return given.take(rest).fit(copy), given.take(held)
