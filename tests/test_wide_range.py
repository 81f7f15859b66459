"""Columns of the largest and the smallest doubles, and weights of any size: the same model."""

import numpy as np
import pytest

from skebm import HybridCDDensity, NCEDensity, USPDensity
from skebm.data import Affine
from skebm.exceptions import NormalizationWarning
from tests import cases

pytestmark = cases.QUIET
Z = np.random.default_rng(0).normal(size=(120, 2))
NEW = np.random.default_rng(1).normal(size=(30, 2))
SCALES = [5e307, 1e300, 1e200, 1e-200, 1e-300, 1e-305]


@pytest.mark.parametrize("scale", SCALES)
@cases.each
def test_the_unit_of_a_column_shifts_the_scores(name, scale):
    """By d log(scale), up to the last digits of the scaled doubles."""
    one = cases.tiny(name).fit(Z)
    other = cases.tiny(name).fit(Z * scale)
    shift = 2 * np.log(scale)
    np.testing.assert_allclose(
        other.score_samples(NEW * scale) + shift, one.score_samples(NEW), atol=2e-3
    )
    rows = other.sample(9, random_state=0)
    assert np.isfinite(rows).all() and np.abs(rows / scale).max() < 50
    if scale > 1e-300:
        gradient = other.score_function(NEW * scale) * scale
        np.testing.assert_allclose(gradient, one.score_function(NEW), atol=2e-2)


def test_a_gradient_that_no_double_holds_keeps_its_sign():
    est = cases.tiny("NCEDensity").fit(Z * 1e-320)
    far = np.array([[3e-320, 0.0], [-3e-320, 0.0]])
    above, below = est.score_function(far)[:, 0]
    assert np.isfinite([above, below]).all() and above < -1e299 and below > 1e299


@pytest.mark.parametrize("image", [False, True])
def test_a_column_from_end_to_end_of_the_doubles(image):
    ends = np.where(Z > 0, 1.7e308, -1.7e308)
    affine = Affine.from_images(ends) if image else Affine.from_table(ends)
    z = affine.forward(ends).numpy()
    np.testing.assert_allclose(np.abs(z), 1, rtol=0.3)
    assert ((z > 0) == (Z > 0)).all()
    np.testing.assert_allclose(affine.inverse(affine.forward(ends)), ends, rtol=1e-6)
    assert np.isfinite(affine.inverse(affine.forward(ends) * 9)).all()


def test_vast_and_ordinary_columns_keep_to_themselves():
    table = np.column_stack([Z[:, 0] * 5e307, Z[:, 1], np.full(len(Z), 1.7e308)])
    affine, plain = Affine.from_table(table), Affine.from_table(Z)
    np.testing.assert_allclose(affine.location[1], plain.location[1], rtol=1e-12)
    np.testing.assert_allclose(affine.scale[1], plain.scale[1], rtol=1e-12)
    assert affine.scale[2] == 1
    np.testing.assert_allclose(affine.scale[0] / 5e307, plain.scale[0], rtol=1e-12)
    z = affine.forward(table).numpy()
    np.testing.assert_allclose(z[:, :2], plain.forward(Z).numpy(), rtol=1e-5, atol=1e-6)
    assert not z[:, 2].any()


@pytest.mark.filterwarnings("ignore::skebm.exceptions.DataDegeneracyWarning")
def test_numpy_that_raises_is_not_asked():
    ends = np.where(Z > 0, 1.7e308, -1.7e308)
    with np.errstate(all="raise"):
        est = cases.tiny("NCEDensity").fit(ends)
        assert np.isfinite(est.score_samples(ends)).all()


@pytest.mark.parametrize("rows", [Z, -np.abs(Z)], ids=["both", "negative"])
def test_rows_that_float32_does_not_hold_are_refused_without_scaling(rows):
    with pytest.raises(ValueError, match=r"X must lie within 1e\+15 .*got a value of size .*e\+20"):
        cases.tiny("NCEDensity", standardize=False).fit(rows * 1e20)


# -- weights ---------------------------------------------------------------------------------------

WEIGHT = np.random.default_rng(2).random(len(Z))


@pytest.mark.parametrize("unit", [1e-46, 1e-300, 5e-324 * 2**30, 1e40, 1e307])
@cases.each
def test_only_ratios_of_weights_count(name, unit):
    one = cases.tiny(name).fit(Z, sample_weight=WEIGHT)
    other = cases.tiny(name).fit(Z, sample_weight=WEIGHT * unit)
    np.testing.assert_allclose(other.score_samples(NEW), one.score_samples(NEW), atol=1e-3)


@pytest.mark.parametrize("weight", [1, 1.0, 0.3, 1e-320, 1e308])
@cases.each
def test_equal_weights_are_no_weights(name, weight):
    est = cases.tiny(name).fit(Z, sample_weight=np.full(len(Z), weight))
    np.testing.assert_array_equal(
        est.score_samples(NEW), cases.tiny(name).fit(Z).score_samples(NEW)
    )
    assert est.offset_ == cases.tiny(name).fit(Z).offset_


def test_equal_weights_beside_zeros_are_the_other_rows():
    weight = np.where(np.arange(len(Z)) % 3, 7.0, 0.0)
    one = cases.tiny("NCEDensity").fit(Z[weight > 0])
    other = cases.tiny("NCEDensity").fit(Z, sample_weight=weight)
    np.testing.assert_array_equal(other.score_samples(NEW), one.score_samples(NEW))


def test_a_weight_that_vanishes_beside_another_is_zero():
    weight = np.where(np.arange(len(Z)) % 3, 1e300, 1e-300)
    one = cases.tiny("NCEDensity").fit(Z[weight > 1])
    other = cases.tiny("NCEDensity").fit(Z, sample_weight=weight)
    np.testing.assert_array_equal(other.score_samples(NEW), one.score_samples(NEW))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("base", ["mixture", "kernel"])
def test_narrow_groups_are_drawn_as_finely_as_they_are_scored(base):
    """Two groups 1e-7 wide at 0 and 1: as float32 numbers each is a few dozen places."""
    rng = np.random.RandomState(3)
    X = (rng.randint(0, 2, 400) + 1e-7 * rng.standard_normal(400))[:, None]
    est = NCEDensity(base=base, max_iter=2, random_state=0).fit(X)
    drawn = est.sample(2000, random_state=1)[:, 0]
    assert len(np.unique(drawn)) == 2000
    near = drawn[np.abs(drawn - 1) < 1e-5] - 1
    assert 0.4e-7 < np.median(np.abs(near)) < 1.5e-7  # 0.67e-7, kernels blur a little


@pytest.mark.filterwarnings("ignore")
def test_a_box_that_single_precision_cannot_tell_from_a_point_scores_alike_in_any_number():
    """A glitch has set the scale: the rows are 1e-8 standard deviations apart."""
    X = np.append(np.random.RandomState(0).standard_normal(24), 1e9)[:, None]
    est = USPDensity(base="uniform", n_points=64, max_iter=2, random_state=25).fit(X)
    few = est.score_samples(X)
    many = est.score_samples(np.resize(X, (300, 1)))[:25]
    np.testing.assert_allclose(many, few, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_box_beyond_what_coordinates_are_clipped_to_says_so():
    X = np.append(np.random.RandomState(0).standard_normal(59), 1e15)[:, None]
    with pytest.warns(NormalizationWarning, match="do not integrate to 1"):
        HybridCDDensity(base="uniform", max_iter=1, random_state=0, validation_fraction=0).fit(X)
