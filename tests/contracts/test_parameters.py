"""Every parameter acts where it should, or is known not to; and a bad value has its error."""

import copy
import re

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from tests import cases

pytestmark = cases.QUIET
NEW = cases.table(20, seed=1)
PARAMETERS = [
    (name, key) for name, cls in cases.CLASSES.items() for key in cls().get_params(deep=False)
]
BASELINES = {}


def left(name, **params):
    """What a fit leaves to be seen; that of each baseline is looked at once."""
    key = name, repr(params)
    if key not in BASELINES:
        est = cases.fitted(name) if not params else cases.tiny(name, **params).fit(cases.table())
        BASELINES[key] = cases.footprint(est, NEW)
    return BASELINES[key]


@cases.each
def test_every_parameter_has_its_entry(name):
    """A new one needs a line in CHANGES or KEPT, and in BAD."""
    names = {key for estimator, key in PARAMETERS if estimator == name}
    acting = {key for key in names if cases.change_of(name, key)}
    assert names - acting - set(cases.KEPT) == set() and not acting & set(cases.KEPT)
    assert names - set(cases.BAD) == set()


@pytest.mark.parametrize(("name", "key"), [p for p in PARAMETERS if cases.change_of(*p)])
def test_a_parameter_acts_where_it_should(name, key):
    value, moves, context = cases.change_of(name, key)
    before, after = left(name, **context), left(name, **{**context, key: value})
    for part in moves.split():
        assert before[part] != after[part], part


@pytest.mark.filterwarnings("ignore:training is read, finished")
@pytest.mark.parametrize(("name", "key"), [p for p in PARAMETERS if p[1] in cases.KEPT])
def test_a_parameter_that_must_not_change_a_fit_does_not(name, key, tmp_path, capsys):
    value = tmp_path if key == "checkpoint_dir" else cases.KEPT[key][0]
    est = cases.tiny(name, **{key: value}).fit(cases.table())
    assert ("training" in capsys.readouterr().err) == (key == "verbose")
    assert any(tmp_path.iterdir()) == (key == "checkpoint_dir")
    assert cases.footprint(est, NEW) == left(name)
    goes_on = est.fit(cases.table()).n_iter_ > cases.fitted(name).n_iter_
    assert goes_on == (key == "warm_start")


@cases.each
def test_the_threshold_alone_follows_contamination_and_log_z_moves_no_energy(name):
    plain = left(name)
    by_contamination = left(name, contamination=cases.CHANGES["contamination"].value)
    moved = {key for key, value in by_contamination.items() if value != plain[key]}
    assert moved == {"offset"}
    assert (
        left(name, log_partition=cases.CHANGES["log_partition"].value)["energy"] == plain["energy"]
    )
    none = left(name, log_partition=None)
    shift = np.subtract(none["scores"], plain["scores"])
    np.testing.assert_allclose(shift, plain["log_z"].value, rtol=1e-12, atol=1e-12)


BAD_VALUES = [
    (name, key, value, error)
    for name, key in PARAMETERS
    for values, error in zip(cases.BAD.get(key, ()), (ValueError, TypeError), strict=False)
    for value in values
]


@pytest.mark.parametrize(("name", "key", "value", "error"), BAD_VALUES, ids=str)
def test_a_bad_value_is_named_at_fit_and_not_before(name, key, value, error):
    est = cases.tiny(name, **cases.BESIDE.get((name, key), {}), **{key: value})  # no complaint yet
    with pytest.raises(error) as caught:
        est.fit(cases.table())
    rule = re.escape("".join(cases.BAD[key][2:]))
    if key != "random_state":  # scikit-learn's own words
        said = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        said = re.escape(f"got {said}")
        assert re.match(rf"{key} must .*{rule}(?![\d.]).*{said}", str(caught.value)), caught.value
        assert type(caught.value) is error
    with pytest.raises(NotFittedError):
        est.score_samples(NEW)


@pytest.mark.parametrize(
    ("name", "params", "message"), [(n, p, m) for n, rows in cases.REFUSED.items() for p, m in rows]
)
def test_parameters_that_do_not_go_together_are_named(name, params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cases.tiny(name, **params).fit(cases.table())


@pytest.mark.parametrize("alias", ["energy", "base", "log_partition"])
@cases.each
def test_an_unknown_alias_fails_before_training(name, alias, updates):
    with pytest.raises(ValueError, match=f"{alias} must be one of .*got 'typo'"):
        cases.tiny(name, **{alias: "typo"}).fit(cases.table())
    assert updates.count == 0


@cases.each
def test_parameters_are_keyword_only_and_unknown_ones_are_refused(name):
    with pytest.raises(TypeError, match="positional"):
        cases.CLASSES[name]("data")
    with pytest.raises(TypeError, match="bandwidth"):
        cases.CLASSES[name](bandwidth=1.0)
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        cases.tiny(name).set_params(nonsense=1)
    with pytest.raises(ValueError, match="Invalid parameter 'width'"):
        cases.tiny(name, energy="mlp").set_params(energy__width=1)


@cases.each
def test_nested_parameters_reach_the_component_behind_an_alias(name):
    est = cases.tiny(name, energy="mlp", base="kernel", log_partition="importance")
    est.set_params(energy__hidden_sizes=(4,), base__n_centers=30, log_partition__n_samples=300)
    assert est.get_params()["energy__hidden_sizes"] == (4,)
    est.set_params(energy__n_frequencies=2).fit(cases.table())
    assert est.base_.centers.shape == (30, 2)
    assert (est.energy.hidden_sizes, est.energy.n_frequencies) == ((4,), 2)
    est.set_params(energy="mlp", energy__hidden_sizes=(5,))
    assert est.energy.hidden_sizes == (5,) and est.energy.n_frequencies != 2


@cases.each
def test_a_warm_start_takes_no_other_networks_nor_columns(name):
    est = cases.tiny(name, warm_start=True).fit(cases.table())
    changes = {"energy__hidden_sizes": (3,), "base": None, "standardize": False}
    changes |= {"optimizer": "sgd"} | ({"temperature": 3.0} if hasattr(est, "temperature") else {})
    for key, value in changes.items():
        other = cases.tiny(name, warm_start=True).fit(cases.table()).set_params(**{key: value})
        word = key.split("_")[0]
        with pytest.raises(ValueError, match=f"{word} must be that of the last fit with warm_s"):
            other.fit(cases.table())
    with pytest.raises(ValueError, match="3 features.*expecting 2"):
        est.fit(np.c_[cases.table(), cases.table()[:, 0]])
    assert est.set_params(learning_rate=1e-4).fit(cases.table()).n_iter_ == 8


@cases.each
def test_a_warm_start_has_the_learning_rate_that_it_is_told(name):
    """A tiny one leaves the parameters where they were."""

    def parameters(est):
        states = est._warm.states
        return np.concatenate([p.detach().ravel() for p in states[-1].model.energy.parameters()])

    est = cases.tiny(name, warm_start=True, validation_fraction=0).fit(cases.table())
    before = parameters(est)
    one, other = (
        parameters(copy.copy(est).set_params(learning_rate=rate).fit(cases.table()))
        for rate in (est.learning_rate, 1e-9)
    )
    assert np.abs(one - before).max() > 100 * np.abs(other - before).max()
