"""Messages that name what the user knows: columns, classes, devices, what became of a fit."""

import datetime
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm import EnergyDensity, HybridCDDensity, NCEDensity
from skebm.bases import Gaussian
from skebm.energies import MLP, Model, Zero
from skebm.estimators._run import Learned
from skebm.exceptions import DataDegeneracyWarning, NormalizationWarning, SelectionWarning
from skebm.metrics import best_within_error, log_likelihood_scorer, ood_metrics
from skebm.objectives import HeldOut, NoiseContrastive, Optimization
from skebm.ood import (
    ConformalNoveltyDetector,
    EnsembleDensity,
    LikelihoodRatioDetector,
    ScoreNormDetector,
    ThresholdDetector,
    TypicalityDetector,
    feature_contributions,
)
from skebm.partition import AIS
from skebm.samplers import MALA
from skebm.stein import learned_stein_discrepancy
from skebm.train import TrainState

X = np.random.RandomState(0).normal(size=(100, 2))
DAYS = [datetime.datetime(2020, 1, 1) + datetime.timedelta(days=i) for i in range(100)]


def tiny(cls=EnergyDensity, **params):
    return cls(**({"energy": MLP((4,)), "max_iter": 2, "random_state": 0} | params))


# -- tables ----------------------------------------------------------------------------------------

TEXT = {"size": X[:, 0], "city": ["Ulm", "Bonn"] * 50}
CALLS = {
    "fit": lambda table: tiny().fit(table),
    "score": lambda table: tiny().fit(X).score_samples(table),
    "stein": lambda table: learned_stein_discrepancy(lambda x: -x, table),
    "contributions": lambda table: feature_contributions(
        GaussianMixture().fit(X), table, reference=X
    ),
    "detector": lambda table: ScoreNormDetector(GaussianMixture()).fit(table),
}


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(TEXT),
        pd.DataFrame(TEXT).astype({"city": "category"}),
        pl.DataFrame(TEXT),
    ],
    ids=["pandas", "category", "polars"],
)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_column_of_text_is_named(call, table):
    message = r"X must hold numbers, got text in column 'city' \('Ulm'\)\. .*OneHotEncoder"
    with pytest.raises(ValueError, match=message):
        call(table)


@pytest.mark.parametrize("names", [[0, 1], [1, 0], ["7", 7], [("a", 1), ("b", 2)]])
def test_a_column_of_text_is_named_by_whatever_names_it(names):
    frame = pd.DataFrame(TEXT)
    frame.columns = names
    with pytest.raises(ValueError, match=re.escape(f"got text in column {names[1]!r} (")):
        tiny().fit(frame)


def test_names_of_several_kinds_are_refused_in_clear_words():
    for names in ([1, "b"], [None, "a"], [("a", 1), "b"]):
        frame = pd.DataFrame(X)
        frame.columns = pd.Index(names, tupleize_cols=False)
        with pytest.raises(TypeError, match="only supported if all input features have string"):
            tiny().fit(frame)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_names_that_repeat_are_refused_in_our_words(call):
    frame = pd.DataFrame(X, columns=["a", "a"])
    message = r"column names must be unique, got 'a' 2 times\. Rename"
    with pytest.raises(ValueError, match=message):
        call(frame)


@pytest.mark.parametrize("seed", ["a", 1.5, -1, 2**32, [1, 2], np.random.default_rng(0)], ids=str)
def test_a_seed_that_is_none(seed):
    message = re.escape(f"2**32 - 1, a RandomState or None, got {seed!r:.60}. Give")
    for call in (
        lambda: tiny(random_state=seed).fit(X),
        lambda: tiny().fit(X).sample(1, random_state=seed),
        lambda: ThresholdDetector(GaussianMixture(), random_state=seed).fit(X),
        lambda: ood_metrics([1.0, 2.0], [0.0], n_bootstrap=2, random_state=seed),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    "inner, message",
    [
        (5, "must have score_samples, got int"),
        (None, "must have score_samples, got NoneType"),
        (LinearRegression(), "must have score_samples, got LinearRegression"),
        (GaussianMixture, r"must be an instance, got the class GaussianMixture\. Write Gauss"),
    ],
    ids=str,
)
def test_what_detectors_cannot_ask(inner, message):
    for cls in (
        ConformalNoveltyDetector,
        EnsembleDensity,
        ScoreNormDetector,
        ThresholdDetector,
        TypicalityDetector,
    ):
        with pytest.raises(TypeError, match=f"estimator {message}"):
            cls(inner).fit(X)
    with pytest.raises(TypeError, match=f"foreground {message}"):
        LikelihoodRatioDetector(inner).fit(X)
    if inner is not None:
        with pytest.raises(TypeError, match=f"background {message}"):
            LikelihoodRatioDetector(GaussianMixture(), inner).fit(X)


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize(
    "table, where",
    [
        (pd.DataFrame({"when": DAYS}), "column 'when'"),
        (pl.DataFrame({"when": DAYS}), "column 'when'"),
        (pl.DataFrame({"when": [day.date() for day in DAYS]}), "column 'when'"),
        (pd.DataFrame({"x": X[:, 0], "lag": pd.Series(DAYS) - DAYS[0]}), "column 'lag'"),
        (pd.DataFrame({"when": DAYS}).to_numpy(), "all columns"),
    ],
    ids=["pandas", "polars", "date", "durations", "array"],
)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_dates_are_no_numbers(call, table, where):
    with pytest.raises(ValueError, match=f"X must hold numbers, got dates or .* in {where}"):
        call(table)


def test_text_that_is_a_number_is_one():
    frame = pd.DataFrame(X, columns=["a", "b"])
    est = tiny().fit(frame)
    np.testing.assert_array_equal(
        tiny().fit(frame.astype(str)).score_samples(frame), est.score_samples(frame)
    )


@pytest.mark.parametrize("n_names", [1, 30])
@pytest.mark.parametrize("length", [3, 25, 120])
def test_a_warning_of_degenerate_columns_is_three_lines_long_and_names_some(n_names, length):
    values = np.column_stack([np.random.RandomState(1).randint(3, size=(100, n_names)), X, 0 * X])
    values = np.column_stack([values, values[:, n_names] + values[:, n_names + 1]])
    names = [f"{j:0{length}d}" for j in range(values.shape[1])]
    with pytest.warns(DataDegeneracyWarning) as caught:
        tiny().fit(pd.DataFrame(values, columns=names))
    (text,) = [str(w.message) for w in caught if "has" in str(w.message)]
    assert len(text) <= 330 and names[n_names + 2][-6:] in text


def test_a_stein_discrepancy_names_columns_too():
    frame = pd.DataFrame({"x": X[:, 0], "grade": np.arange(100) % 3.0})
    for table, name in ((frame, "1: grade"), (frame.to_numpy(), "1: column 1")):
        with pytest.warns(DataDegeneracyWarning, match=name):
            learned_stein_discrepancy(lambda x: -x, table)


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "est, message",
    [
        (tiny(energy=MLP), r"energy must be an instance .* the class MLP\. Write MLP\(\)"),
        (tiny(energy=torch.nn.Linear), "number of columns .* alone, got the class Linear, which"),
        (tiny(base=Gaussian), r"base must be one of .* the class Gaussian\. Write Gaussian\(\)"),
        (tiny(log_partition=AIS), r"log_partition .* the class AIS\. Write AIS\(\)"),
        (tiny(optimizer=Optimization), r"optimizer .* the class Optimization\. Write"),
        (tiny(objective=NoiseContrastive), "objective .* got the class NoiseContrastive"),
        (tiny(HybridCDDensity, sampler=MALA), r"sampler .* the class MALA\. Write MALA\(\)"),
    ],
)
def test_a_class_in_place_of_an_instance(est, message):
    with pytest.raises(TypeError, match=message):
        est.fit(X)


def test_a_class_of_modules_may_be_the_factory():
    class Bowl(torch.nn.Module):
        def __init__(self, n_features):
            super().__init__()
            self.a = torch.nn.Parameter(torch.ones(n_features))

        def forward(self, x):
            return (self.a * x.square()).sum(1)

    assert np.isfinite(tiny(energy=Bowl).fit(X).score_samples(X)).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_without_cuda():
    with pytest.raises(ValueError, match="got 'cuda' where torch .* Use 'auto'"):
        tiny(device="cuda").fit(X)


# -- what became of a fit --------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [EnergyDensity, NCEDensity])
def test_a_rate_that_throws_the_energy_away_says_so(cls):
    rows = np.random.RandomState(0).normal(size=(300, 2))
    with pytest.warns(ConvergenceWarning, match="learning_rate 10000 and went back; .* its base"):
        est = tiny(cls, learning_rate=1e4, max_iter=60).fit(rows)
    assert est.energy_kept_ is False


@pytest.mark.parametrize(
    ("base", "retries", "gain", "said"),
    [(1, 1, -1.0, 0), (1, 2, -1.0, 1), (1, 2, 1.0, 0), (0, 1, -1.0, 1)],
)
def test_an_energy_that_came_back_and_earned_nothing_did_not_diverge(base, retries, gain, said):
    """As on breast cancer with ScoreMatchingDensity: smaller steps were sound, and no better."""
    model = Model(Zero(), Gaussian().fit(torch.zeros(5, 2), None, None) if base else None, 1.0)
    state = TrainState(50, model, None, None, retries=retries)
    learned = Learned(model, [state], HeldOut(0.0, gain, 0.1, 100.0), True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learned.tell(0.002, False)
    assert len(caught) == said


def test_whether_the_energy_is_kept_is_said_and_shown(capsys):
    ring = np.random.RandomState(0).normal(size=(400, 2))
    ring = 3 * ring / np.linalg.norm(ring, axis=1, keepdims=True) + 0.1 * ring
    params = {"base": "gaussian", "learning_rate": 3e-3, "energy": MLP((32, 32))}
    kept = tiny(**params, max_iter=150, verbose=1).fit(ring)
    assert kept.energy_kept_ is True
    line = capsys.readouterr().out
    gain, error = kept.validation_gain_
    assert line == (
        f"energy kept: held-out gain over the base, nats per row: {gain:.4g} +- {error:.2g}\n"
    )
    base = tiny(base="gaussian", max_iter=2, learning_rate=1e-9, verbose=1).fit(X)
    assert base.energy_kept_ is False and base.validation_gain_ == (0.0, 0.0)
    assert capsys.readouterr().out.startswith("base kept, without energy: held-out gain")
    tiny().fit(X)
    assert capsys.readouterr().out == ""


def test_levels_of_talk(capsys, caplog):
    with caplog.at_level("INFO", logger="skebm"):
        tiny(base="gaussian", max_iter=2).fit(X)
    said = [line.partition(":")[0] for line in caplog.messages]
    assert said == ["table", "base", "update 0", "update 2", "training", "log Z", "threshold"]
    assert capsys.readouterr() == ("", "")
    caplog.clear()
    tiny(base="gaussian", max_iter=2, verbose=2).fit(X)
    out, err = capsys.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines() if "kept" not in line] == said
    assert err == "" and "base: Mixture of 1 components (" in out
    tiny(base="gaussian", max_iter=2, verbose=1).fit(X)
    out, err = capsys.readouterr()
    assert "training" in err and "held-out gain" in out and "update" not in out


def test_a_search_over_equal_models_says_so():
    search = GridSearchCV(
        tiny(base="gaussian", learning_rate=1e-9),
        {"batch_size": [8, 16]},
        scoring=log_likelihood_scorer,
        refit=best_within_error,
        cv=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.warns(SelectionWarning, match="1 of them score the same in every split"):
            search.fit(X)
    assert not search.best_estimator_.energy_kept_


def test_warnings_name_the_line_of_the_caller():
    X = np.random.RandomState(0).randn(60, 2)
    X = np.column_stack([X, X[:, 0]])  # a column that another determines
    est = NCEDensity(max_iter=2, log_partition=None, random_state=0)
    for call in (
        lambda: est.fit(X),
        lambda: make_pipeline(StandardScaler(), est).fit(X),
        lambda: GridSearchCV(est, {"max_iter": [1]}, cv=2).fit(X),
        lambda: est.score(X),
    ):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
        ours = [w for w in seen if w.category.__module__.startswith("skebm")]
        assert ours and {w.filename for w in ours} == {__file__}, seen


def test_a_caller_without_a_name_is_warned():
    est = NCEDensity(max_iter=2, log_partition=None, random_state=0).fit(X)
    with pytest.warns(NormalizationWarning, match="unnormalized"):
        exec("est.score(X)", {"__name__": None, "est": est, "X": X})
