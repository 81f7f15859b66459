"""Tables that come block by block: what a fit keeps of them, reads of them, fits that go on."""

from __future__ import annotations

__all__ = ["BlockReads", "check_block", "check_names", "opened", "reach_of", "sampling_seed"]

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_random_state
from skebm._ranks import rank
from skebm._warn import warn
from skebm.data.sources import DaskRows, MappedRows, Source, as_source
from skebm.data.streamed import MOST_KEPT, Stream
from skebm.data.table import FEWEST_FOR_VALIDATION
from skebm.estimators._run import Before, Reach
from skebm.estimators._shared import check_shared
from skebm.exceptions import DriftWarning

FLOATS = [np.float64, np.float32]  # of rows to score, as they are: a copy may not fit in memory
FEWEST_BEYOND = 0.01  # share of a block's rows beyond what was known, from which it has drifted
RARE = 12  # such rows per known one: 2 are expected, more than 12 fall out once in 1e4 columns


class Opened(NamedTuple):
    """A table as a fit takes it.

    Parameters
    ----------
    X : table
        Rows: all of them, or a sample of a source that is longer.
    sample_weight : array-like or None
        Their weights.
    names : list of str or None
        Of the columns, where X has lost them.
    stream : Stream or None
        Where batches come from, if not from X.
    """

    X: Any
    sample_weight: Any
    names: list[str] | None
    stream: Stream | None


class BlockReads:
    """Fits and reads of a density estimator that go block by block."""

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn from one more block of rows.

        The first block is fitted; later ones go on from there by `max_iter` updates at most, with
        the columns' scaling and the base of the first one, and estimate log Z and the threshold
        anew, the latter from this block.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or a source
            At least 20 rows, unless ``validation_fraction=0``.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            As for ``fit``.

        Returns
        -------
        self : object
            The fitted estimator.

        Warns
        -----
        DriftWarning
            Where a hundredth of the block is beyond the range of the first one.

        Notes
        -----
        Whatever stops it, the estimator stays as it was. An energy that was kept stays unless the
        block's held-out rows speak against it by more than a standard error. After a ``fit``
        without ``warm_start=True`` optimizer and chains start anew, and the range is that of the
        first block from then on.

        Examples
        --------
        >>> import numpy as np
        >>> from skebm import NCEDensity
        >>> blocks = np.random.RandomState(0).randn(3, 200, 2)
        >>> est = NCEDensity(max_iter=25, random_state=0)
        >>> for block in blocks:
        ...     est = est.partial_fit(block)
        >>> est.n_iter_
        75
        """
        twin: Any = copy.copy(self)
        as_it_is, twin.warm_start = twin.warm_start, True
        if hasattr(self, "density_"):
            kept, density = twin.energy_kept_, self.density_
            before = getattr(self, "_warm", None) or Before(
                [], density.transform, twin._structure(), twin._schema(), model=density.model
            )
            twin._warm = before._replace(is_block=True, kept=kept)
        twin.fit(X, y, sample_weight)
        twin.warm_start, twin._warm = as_it_is, twin._warm._replace(is_block=False)
        self.__dict__ = vars(twin)
        return self

    def score_blocks(self, X: Any) -> Iterator[np.ndarray]:
        """Return ``score_samples`` of the rows of a source, block by block.

        Parameters
        ----------
        X : memory map, source, torch Dataset or DataLoader, dask collection, or array-like
            Rows in the units of the training table; a table in memory is one block.

        Returns
        -------
        iterator of ndarray of shape (m,)
            Log densities in nats, each block computed when it is asked for.

        Examples
        --------
        >>> import numpy as np
        >>> from skebm import NCEDensity
        >>> X = np.random.RandomState(0).randn(200, 2)
        >>> est = NCEDensity(max_iter=25, random_state=0).fit(X)
        >>> [len(block) for block in est.score_blocks(X)]
        [200]
        """
        check_is_fitted(self)
        source = as_source(X)
        if source is None:
            return iter([self.score_samples(X)])  # type: ignore[attr-defined]
        return self._blocks(source, self._log_density)  # type: ignore[attr-defined]

    def _read(self, X: Any, function: Callable[[np.ndarray, Any], np.ndarray]) -> Any:
        """Return a function of encoded rows and log probabilities of unseen codes, of any table."""
        source = None if isinstance(X, np.ndarray) else as_source(X)
        if source is None:
            return function(*self._encoded(X, FLOATS))  # type: ignore[attr-defined]
        if not isinstance(source, DaskRows):
            return np.concatenate([np.empty(0), *self._blocks(source, function)])
        self._check_columns(source)
        return source.map(lambda rows: self._of_block(rows, function))

    def _blocks(self, source: Source, function: Callable) -> Iterator[np.ndarray]:
        self._check_columns(source)
        return (self._of_block(rows, function) for rows in source.blocks())

    def _of_block(self, rows: np.ndarray, function: Callable) -> np.ndarray:
        self._check_width(rows.shape[1])
        if not len(rows):  # of a partition that a filter emptied
            return np.empty(0)
        with np.errstate(all="ignore"):
            rows = check_array(rows, dtype=FLOATS, ensure_all_finite="allow-nan")
        return function(self._holed(rows), 0.0)  # type: ignore[attr-defined]

    def _check_columns(self, source: Source) -> None:
        """Refuse a source whose columns are not those of the fit."""
        check_is_fitted(self)
        if self._schema() is not None:  # type: ignore[attr-defined]
            raise ValueError(
                "X must be a table in memory where the fit was to columns of codes or lattices, "
                f"got {type(source).__name__}. Read and score it in parts."
            )
        if source.n_features is not None:
            self._check_width(source.n_features)
        check_names(source.names, getattr(self, "feature_names_in_", None))

    def _check_width(self, n: int) -> None:
        if n != self.n_features_in_:  # type: ignore[attr-defined]
            raise ValueError(
                f"X must have the {self.n_features_in_} columns of the fit, got {n} features. "  # type: ignore[attr-defined]
                "Choose them."
            )


def opened(estimator: Any, X: Any, sample_weight: Any) -> Opened:
    """Return a table in memory as it is, and of a source its rows or, of many, a sample."""
    source = as_source(X)
    if source is None or (isinstance(source, MappedRows) and len(X) <= MOST_KEPT):
        return Opened(X, sample_weight, None, None)
    if source.n_features is not None:  # before a long pass
        check_shared(estimator, source.n_features)
    weight = None if sample_weight is None or np.ndim(sample_weight) == 0 else sample_weight
    if weight is not None and not source.is_ordered:
        raise ValueError(
            "sample_weight must be None where the order of rows is not fixed, got a DataLoader "
            "that shuffles. Give its dataset, or a WeightedRandomSampler."
        )
    if weight is not None and not isinstance(weight, np.ndarray):
        weight = np.asarray(weight)
    seed = sampling_seed(estimator) + rank()
    stream = Stream(source, weight, seed, int(estimator.verbose) if rank() == 0 else 0)
    rows, kept = stream.survey()
    if stream.is_long:
        return Opened(rows, sample_weight if weight is None else kept, source.names, stream)
    return Opened(rows, sample_weight, source.names, None)


def sampling_seed(estimator: Any) -> int:
    """Return the seed of samples, which the fit's own does not change.

    The same for each fit without a seed: an unfinished one must be found again.
    """
    state = copy.deepcopy(estimator.random_state)
    return 0 if state is None else int(check_random_state(state).randint(np.iinfo(np.int32).max))


def check_names(names: Any, known: Any) -> None:
    """Refuse columns of other names than those of the fit; either may have none."""
    if names is not None and known is not None and list(names) != list(known):
        raise ValueError(
            f"X must have the columns of the fit in their order, {list(known)}, got {list(names)}. "
            "Choose them by `columns`."
        )


def reach_of(X: np.ndarray) -> Reach:
    """Return how far rows (n, d) reach, without what is missing."""
    return Reach(np.fmin.reduce(X, axis=0), np.fmax.reduce(X, axis=0), len(X))


def check_block(
    X: np.ndarray, reach: Reach | None, names: list[str], fraction: float, unseen: np.ndarray
) -> None:
    """Refuse a block (n, d) too small to be judged; warn where it goes beyond the first one.

    `unseen` says which rows have codes that the first one had not.
    """
    if fraction > 0 and len(X) < FEWEST_FOR_VALIDATION:
        raise ValueError(
            f"X must have at least {FEWEST_FOR_VALIDATION} rows in partial_fit, got {len(X)}. "
            "Gather more, or set validation_fraction=0."
        )
    if reach is None:
        return
    beyond = (X < reach.low) | (X > reach.high)
    chance = RARE / (reach.n_rows + 1)
    most = max(FEWEST_BEYOND, chance + 4 * np.sqrt(chance / len(X)))
    drifted = np.flatnonzero(beyond.mean(axis=0) > most)
    found = [f"{100 * beyond[:, j].mean():.3g} % in {names[j]}" for j in drifted[:3]]
    found += [f"some in {len(drifted) - 3} more columns"] * (len(drifted) > 3)
    if unseen.mean() > most:
        found.append(f"{100 * unseen.mean():.3g} % with new categories")
    if found:
        warn(
            f"Rows of X are beyond those of the first block ({', '.join(found)}): the scaling and "
            "the base do not know them. Fit anew if this lasts.",
            DriftWarning,
        )
