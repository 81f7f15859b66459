"""Bases that are torch distributions or flows, of any precision and laziness."""

import pickle

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, Uniform

from skebm import EnergyDensity
from skebm.bases import TorchDistribution
from skebm.energies import MLP
from tests.closed_forms import assert_mean

X = np.random.RandomState(0).normal(size=(120, 2))


class LazyNormal(torch.nn.Module):
    """A flow as zuko has them: it returns a distribution, of nothing or of a context."""

    def __init__(self, context=0):
        super().__init__()
        self.shift, self.context = torch.nn.Linear(1, 2), context

    def forward(self, c=None):
        assert (c is not None) == (self.context > 0), "a context where there is none"
        mean = self.shift(torch.zeros(1, dtype=self.shift.weight.dtype))
        return Independent(Normal(mean, torch.ones_like(mean)), 1)


def zuko_flow():
    return pytest.importorskip("zuko").flows.NSF(2, 0, transforms=1, hidden_features=(8,))


def trained(x):
    """What users write: train the flow on the rows, return it."""
    flow = LazyNormal().to(x.dtype)
    optimizer = torch.optim.Adam(flow.parameters(), 0.1)
    for _ in range(3):
        (-flow().log_prob(x).mean()).backward()
        optimizer.step()
    return flow


def estimator(distribution, **params):
    params |= {"energy": MLP((8,)), "max_iter": 2, "random_state": 0}
    return EnergyDensity(base=TorchDistribution(distribution), **params)


def fitted_base(distribution, dtype=torch.float32):
    return TorchDistribution(distribution).fit(torch.as_tensor(X, dtype=dtype), None, None)


@pytest.mark.parametrize(
    "make", [LazyNormal, lambda: trained, zuko_flow], ids=["lazy", "own", "zuko"]
)
def test_a_flow_is_called_without_rows_and_pickles(make):
    given = make()
    est = estimator(given).fit(X)
    again = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(again.score_samples(X), est.score_samples(X))
    assert est.sample(5).shape == (5, 2) and np.isfinite(est.score_function(X)).all()
    if isinstance(given, torch.nn.Module):  # the user's own stays as it was
        assert all(p.requires_grad and p.dtype == torch.float32 for p in given.parameters())


def test_save_refuses_a_flow_at_once(tmp_path):
    with pytest.raises(TypeError, match="base must be one of skebm's own"):
        estimator(LazyNormal()).fit(X).save(tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: Independent(
            Normal(torch.zeros(2, dtype=dtype), torch.ones(2, dtype=dtype)), 1
        ),
        lambda dtype: MultivariateNormal(torch.zeros(2, dtype=dtype), torch.eye(2, dtype=dtype)),
        lambda dtype: LazyNormal().to(dtype),
    ],
    ids=["independent", "full", "lazy"],
)
@pytest.mark.parametrize("own", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [torch.float32, torch.float64])
def test_the_rows_have_the_say_on_precision(make, own, rows):
    base, x = fitted_base(make(own), rows), torch.as_tensor(X, dtype=rows)
    rng = torch.Generator().manual_seed(0)
    log_prob, score = base.log_prob_and_score(x)
    assert {log_prob.dtype, score.dtype, base.sample(3, rng).dtype} == {rows}
    double = base.double()
    assert double.log_prob(x.double()).dtype == double.sample(3, rng).dtype == torch.float64
    np.testing.assert_allclose(double.log_prob(x.double()), log_prob, atol=1e-5)


def test_a_box_covers_the_rows_or_says_so():
    box = Independent(Uniform(torch.full((2,), -2.0), torch.full((2,), 2.0)), 1)
    outside = int((np.abs(X) >= 2).any(axis=1).sum())
    assert 0 < outside < 120
    with pytest.raises(ValueError, match=f"got {outside} of 120 where it has none. Widen .* to "):
        fitted_base(box)
    wide = Independent(Uniform(torch.full((2,), -5.0), torch.full((2,), 5.0)), 1)
    base = fitted_base(wide)
    log_prob, score = base.log_prob_and_score(torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0]]))
    np.testing.assert_allclose(log_prob, [-np.log(100), -np.inf, -np.inf], rtol=1e-6)
    assert (score == 0).all()
    est = estimator(wide).fit(X)
    assert np.isfinite(est.score_samples([[0.0, 0.0], [99.0, 0.0]])).all()
    assert_mean(est.sample(400, random_state=0)[:, 0], X[:, 0].mean(), 1.0)


@pytest.mark.parametrize(
    "distribution, error, message",
    [
        (LazyNormal(context=1), TypeError, "without arguments, got LazyNormal, .* AssertionError"),
        (Normal, TypeError, "object with log_prob and sample, got <class"),
        (torch.nn.Linear(2, 2), TypeError, "without arguments, got Linear, which raised TypeError"),
        (lambda x: x.mean(), TypeError, "object with log_prob and sample, got tensor"),
        (Normal(0.0, 1.0), ValueError, r"shape \(n,\), got \(2, 2\) for 2 rows. Wrap"),
        (MultivariateNormal(torch.zeros(3), torch.eye(3)), ValueError, r"shape \(n, 2\), got"),
    ],
)
def test_what_is_no_distribution_of_rows(distribution, error, message):
    with pytest.raises(error, match=message):
        fitted_base(distribution)
