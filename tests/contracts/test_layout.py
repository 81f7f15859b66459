"""The same numbers in other clothes: memory order, strides, dtypes, frames, frozen arrays."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from tests.cases import QUIET, build, detected, each, each_outlier_detector, fitted, table, tiny

pytestmark = QUIET
NEW = table(9, seed=1)


def layouts(X):
    strided = np.zeros((2 * len(X), 3 * X.shape[1]))
    strided[::2, ::3] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    return {
        "fortran": np.asfortranarray(X),
        "strided": strided[::2, ::3],
        "reversed": X[::-1].copy()[::-1],
        "read-only": frozen,
        "list": X.tolist(),
        "big-endian": X.astype(">f8"),
        "tensor": torch.from_numpy(X.copy()),
        "frame": pd.DataFrame(X, columns=["a", "b"]),
    }


LAYOUTS = list(layouts(NEW))


@pytest.mark.parametrize("layout", LAYOUTS)
@each
def test_a_layout_changes_no_bit(name, layout):
    same, one = layouts(table())[layout], fitted(name)
    two = tiny(name).fit(same)
    if layout == "frame":  # which has names
        np.testing.assert_array_equal(two.score_samples(same), one.score_samples(table()))
    else:
        np.testing.assert_array_equal(two.score_samples(NEW), one.score_samples(NEW))
        assert (one.score_samples(same) == one.score_samples(table())).all()
        assert (one.score_function(same) == one.score_function(table())).all()
    assert two.offset_ == one.offset_
    assert (two.sample(3) == one.sample(3)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@each
def test_a_dtype_counts_by_its_values_alone(name, dtype):
    X = (20 * table()).astype(dtype)
    one, two = (tiny(name, data_noise=0.01).fit(x) for x in (X, X.astype(np.float64)))
    values = one.score_samples(X)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, two.score_samples(X.astype(np.float64)))
    np.testing.assert_array_equal(one.sample(3), two.sample(3))


@each_outlier_detector
def test_nothing_writes_into_what_it_is_given(name):
    X, new, weight = table(), table(9, seed=1), np.arange(1.0, 121.0)
    before = X.copy(), new.copy(), weight.copy()
    est = build(name)
    est.fit(X, sample_weight=weight) if hasattr(est, "energy") else est.fit(X)
    est.score_samples(new), est.predict(new)
    for now, then in zip((X, new, weight), before, strict=True):
        np.testing.assert_array_equal(now, then)


@each_outlier_detector
def test_detectors_read_any_layout(name):
    est = detected(name)
    for layout, same in layouts(NEW).items():
        if layout not in ("frame", "tensor"):
            np.testing.assert_array_equal(est.score_samples(same), est.score_samples(NEW), layout)
    frame = layouts(table())["frame"]
    named = clone(build(name)).fit(frame)
    expected = est.score_samples(table())
    np.testing.assert_allclose(named.score_samples(frame), expected, rtol=1e-12)
