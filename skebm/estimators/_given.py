"""What a fit may be given: rows, weights and columns, checked before anything is set."""

from __future__ import annotations

__all__ = ["Columns", "TableChecks", "labels_left"]

import copy
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from skebm._ranks import n_ranks
from skebm._tables import as_frame, has_numbers_alone, naming_columns, row_weights, take_rows
from skebm._warn import warn
from skebm.bases import Mixture
from skebm.data import Schema
from skebm.data.transform import LARGEST
from skebm.estimators._conditional import REMEDY, takes_holes
from skebm.estimators._run import Before, Reach
from skebm.estimators._shared import check_shared, resolved
from skebm.estimators._streaming import check_block, check_names, reach_of
from skebm.exceptions import DataDegeneracyWarning
from skebm.fitted.density import missing
from skebm.partition import Auto, ImportanceSampling


class TableChecks:
    """Checks of the table of a density estimator, which leave it as it is."""

    base: Any
    fits_on_ranks: bool
    image_shape: Any
    log_partition: Any
    n_features_in_: int
    standardize: Any
    validation_fraction: float
    warm_start: bool

    def _checked(
        self, X: Any, sample_weight: Any, before: Before | None, names: list[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray | None, Columns]:
        """Check the table, whose names it may have lost, and all parameters; set nothing."""
        reader = copy.copy(self)  # gets the names in place of self
        known = None if before is None else getattr(self, "feature_names_in_", None)
        if names is not None and known is not None:
            del vars(reader)["feature_names_in_"]
        log_unseen = np.zeros(1)  # probability of codes that no fit saw
        schema = self._found_schema(X, before)
        if schema is not None:
            validate_data(reader, X, reset=before is None, skip_check_array=True)
            X, log_unseen = schema.encode(X)
            X = self._few_refused(X)
        else:
            # sums of the table, which doubles may not hold, are no error
            with np.errstate(all="ignore"), naming_columns(X):
                X = validate_data(
                    reader,
                    X,
                    dtype=np.float64,
                    order="C",
                    ensure_min_samples=2,
                    reset=before is None,
                    ensure_all_finite="allow-nan",
                )
        check_shared(self, X.shape[1])
        if missing(X) is not None:
            X, sample_weight = self._with_values(X, sample_weight)
        if not self.standardize:
            _check_size(X)
        X, weight = _weighted_rows(X, sample_weight)
        n, given = reader.n_features_in_, getattr(reader, "feature_names_in_", None)
        if names is not None:
            check_names(names, known)
            given = np.array(names, dtype=object)
        columns = Columns(n, given, schema)
        if self.warm_start:
            columns.reach = reach_of(X) if before is None else before.reach or reach_of(X)
        if before is not None and before.is_block:
            unseen, fraction = log_unseen < 0, self.validation_fraction
            check_block(X, before.reach, columns.names, fraction, unseen)
        return X, weight, columns

    def _found_schema(self, X: Any, before: Before | None) -> Schema | None:
        """Return what the columns are where some are not plain numbers, None where all are.

        Raises
        ------
        ValueError, TypeError
            If `columns` is unfit, or some are of codes and the estimator cannot learn them.
        """
        if before is not None:
            return before.schema
        kinds = getattr(self, "columns", None)
        automatic = isinstance(kinds, str) and kinds == "auto"
        if kinds is None or self.image_shape is not None or (automatic and as_frame(X) is None):
            return None
        if not automatic and not isinstance(kinds, dict):
            raise TypeError(
                f"columns must be 'auto' or a dict from columns to kinds, got {kinds!r}. Kinds are "
                "'category', 'number' and 'continuous'."
            )
        obstacle = self._obstacle_to_codes()
        if obstacle and automatic and has_numbers_alone(X):
            return None  # all are numbers to it, as in an array
        schema = Schema.of(X, kinds)
        if schema.is_plain:
            return None
        if obstacle:
            raise ValueError(
                f"{obstacle} with columns of codes, lattices or dates, got some "
                f"({', '.join(map(str, schema.special[:3]))}). Or give an array of numbers."
            )
        return schema

    def _obstacle_to_codes(self) -> str:
        """Return what would have to be otherwise for columns of codes to be learnt, if anything."""
        base = self.base if self.base is None else resolved(self, "base")
        if not isinstance(base, Mixture):
            return "base must be 'union' or 'mixture'"
        if self.log_partition not in ("auto", "importance", None) and not isinstance(
            self.log_partition, Auto | ImportanceSampling
        ):
            return "log_partition must be 'auto' or 'importance'"
        return ""

    @staticmethod
    def _few_refused(X: np.ndarray) -> np.ndarray:
        if len(X) < 2:
            raise ValueError(
                f"X must have at least 2 rows, got n_samples = {len(X)}. Give more rows."
            )
        return X

    def _with_values(self, X: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, Any]:
        """Refuse missing values where the base has no conditionals; leave out rows of nothing."""
        base = self.base if self.base is None else resolved(self, "base")
        if not takes_holes(base, self.image_shape):
            name = type(base).__name__ if base is not None else None
            raise ValueError(
                f"X must have no missing values with base {name}, got Input X contains NaN. "
                f"{REMEDY}"
            )
        empty = np.isnan(X).all(1)
        if empty.any():
            warn(
                f"{int(empty.sum())} of {len(X)} rows have no value and are left out.",
                DataDegeneracyWarning,
            )
            X = X[~empty]
            if sample_weight is not None and np.ndim(sample_weight):
                sample_weight = np.asarray(sample_weight)[~empty]
        return X, sample_weight

    def _check_ranks(self, X: np.ndarray, columns: Columns) -> None:
        """Refuse rows that one process can fit and several cannot."""
        obstacle = ""
        if not self.fits_on_ranks:
            obstacle = f"estimator must be another for {n_ranks()} ranks, got {type(self).__name__}"
        elif columns.schema is not None:
            names = ", ".join(map(str, columns.schema.special[:3]))
            obstacle = f"X must hold plain numbers on {n_ranks()} ranks, got others in {names}"
        elif missing(X) is not None:
            obstacle = f"X must have no missing values on {n_ranks()} ranks, got NaN"
        if obstacle:
            raise ValueError(f"{obstacle}. Fit on one, in skebm.train.not_distributed().")


class Columns:
    """How many columns a table has, and what they are called."""

    def __init__(self, n: int, given: np.ndarray | None, schema: Schema | None = None) -> None:
        self.n, self.given, self.schema = n, given, schema
        self.names = [f"column {j}" for j in range(n)] if given is None else list(given)
        if schema is not None:
            self.names = schema.names
        self.reach: Reach | None = None  # of the rows of a first fit that others may go on from


def labels_left(y: Any, sample_weight: Any, n: int) -> Any:
    """Return the labels of the n rows that are left, for callbacks alone."""
    weight = np.asarray(sample_weight)
    if y is None or weight.ndim == 0 or len(weight) == n:
        return y
    return take_rows(np.asarray(y), np.flatnonzero(weight))


def _check_size(X: np.ndarray) -> None:
    """Refuse rows whose squares float32 does not hold."""
    largest = np.abs(X).max()
    if largest > LARGEST:
        raise ValueError(
            f"X must lie within {LARGEST:g} with standardize=False, got a value of size "
            f"{largest:.3g}. Set standardize=True, or scale the columns."
        )


def _weighted_rows(X: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Check the weights and leave out rows of weight 0."""
    if sample_weight is None:
        return X, None
    weight = row_weights(sample_weight, len(X))
    X, weight = X[weight > 0], weight[weight > 0]
    return X, None if (weight == 1).all() else weight  # equal weights are no weights
