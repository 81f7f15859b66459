"""What ranks know of each other's rows: a sample of all of them, equal on every rank."""

from __future__ import annotations

__all__ = ["check_alike", "pooled"]

from typing import Any, NamedTuple

import numpy as np

from skebm._ranks import gathered, rank
from skebm.data.sources import MappedRows
from skebm.data.streamed import MOST_KEPT, Stream

OWN = ("checkpoint_dir", "device", "random_state", "verbose")  # parameters that may differ


class Pooled(NamedTuple):
    """All ranks' rows as one fit takes them.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        All rows, of more than 100,000 a sample.
    weight : ndarray of shape (n,) or None
        Their weights.
    stream : Stream
        Where this rank's batches come from.
    """

    X: np.ndarray
    weight: np.ndarray | None
    stream: Stream


def check_alike(estimator: Any, n_features: int, names: Any, is_first: bool) -> None:
    """Refuse ranks that would not do the same.

    Raises
    ------
    ValueError
        If they have other columns, parameters or earlier fits.
    """
    params = estimator.get_params(deep=False)
    about = {"estimator": type(estimator).__name__, "first fit": is_first}
    about |= {"columns of X": n_features if names is None else list(names)}
    about |= {k: v for k, v in params.items() if k not in OWN and _is_plain(v)}
    told = gathered(about)
    for i, other in enumerate(told):
        for name in [k for k in told[0] if told[0][k] != other.get(k)]:
            raise ValueError(
                f"{name} must be the same on all ranks, got {told[0][name]!r} on rank 0 and "
                f"{other.get(name)!r} on rank {i}. Or fit in skebm.train.not_distributed()."
            )


def pooled(
    X: np.ndarray, weight: np.ndarray | None, sample_weight: Any, stream: Stream | None, seed: int
) -> Pooled:
    """Gather a sample of all ranks' rows (n, d), in proportion to their weights as given.

    `weight` is relative, and has no zeros, as X has no such rows. Priority sampling, as in
    `Reservoir`: row i of all has the i-th random number, so rows in the same order are sampled
    alike on any number of ranks.
    """
    if stream is None:
        stream = Stream(MappedRows(X), weight, seed, 0)
    assert stream.n_rows is not None  # of a memory map, or after a survey
    given = np.asarray(1.0 if sample_weight is None else sample_weight, dtype=np.float64)
    own = given[given > 0] if given.ndim else np.full(len(X), given)
    if stream.weight is None:
        own = own * (stream.n_rows / len(X))
    told = gathered((len(X), float(own.sum()), seed))  # of a sample the sum is unbiased
    sizes, totals, seeds = zip(*told, strict=True)
    stream.share, stream.seed = totals[rank()] / sum(totals), seeds[0] + rank()
    priority = own / _uniform(seeds[0], sum(sizes[: rank()]), len(X))
    highest = np.concatenate(gathered(np.sort(priority)[-MOST_KEPT - 1 :]))
    tau = np.sort(highest)[-MOST_KEPT - 1] if sum(sizes) > MOST_KEPT else 0.0
    chosen = priority > tau
    parts = gathered((X[chosen], np.maximum(own, tau)[chosen]))
    X, own = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Pooled(X, None if (own == own[0]).all() else own / own.max(), stream)


def _uniform(seed: int, start: int, n: int) -> np.ndarray:
    """Return n numbers in (0, 1], those from `start` on of an endless row of them."""
    skipped, left = divmod(start, 4)  # a step of the counter makes four
    numbers = np.random.Generator(np.random.Philox(key=seed).advance(skipped)).random(left + n)
    return 1 - numbers[left:]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple)
