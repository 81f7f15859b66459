"""Every public component is a value: stored verbatim, equal, cloned, pickled, written as JSON."""

import importlib
import inspect
import json
import pickle

import pytest
import torch
from sklearn.base import clone

from skebm._components import Component, decode, encode
from tests import cases
from tests.generators import gen

pytestmark = cases.QUIET
PLACES = ["bases", "energies", "samplers", "partition", "objectives", "networks"]


def public(place, kind):
    module = importlib.import_module(f"skebm.{place}")
    members = {name: getattr(module, name) for name in module.__all__}
    return {
        name
        for name, member in members.items()
        if inspect.isclass(member) and issubclass(member, kind) and not is_abstract(member)
    }


def is_abstract(cls):
    members = inspect.getmembers(cls)
    return any(getattr(value, "__isabstractmethod__", False) for _, value in members)


def test_everything_public_has_its_case():
    assert {name for place in PLACES for name in public(place, Component)} == set(cases.COMPONENTS)
    assert {name for name in importlib.import_module("skebm").__all__} >= set(cases.CLASSES)
    assert public("ood", object) == {*cases.DETECTORS, *cases.LOCAL, "Reason"} and public(
        "plots", object
    ) == set(cases.DISPLAYS)


def values_of(component):
    return component.get_params(deep=False)


@cases.each_component
def test_parameters_are_stored_verbatim_and_can_be_set(name):
    component = cases.COMPONENTS[name]
    for key, value in values_of(component).items():
        fresh = type(component)(**values_of(component))
        assert getattr(fresh, key) is value
        assert fresh.set_params(**{key: "other"}).get_params(deep=False)[key] == "other"
        assert fresh != component
    assert vars(component).keys() == values_of(component).keys()


@cases.each_component
def test_copies_are_equal(name):
    component = cases.COMPONENTS[name]
    copies = [clone(component)]
    if name != "TorchDistribution":  # which holds what has no equality
        copies += [pickle.loads(pickle.dumps(component))]
        copies += [decode(json.loads(json.dumps(encode(component))))]
        assert all(hash(copy) == hash(component) for copy in copies)
        assert all(copy == component and copy is not component for copy in copies)
    for copy in copies:
        assert type(copy) is type(component) and repr(copy).split("(")[0] == name


def state_of(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", cases.BASES)
def test_a_base_is_its_seed_and_its_tensors(name):
    x = torch.from_numpy((cases.table() - cases.table().mean(0)) / cases.table().std(0)).float()
    before, kept = torch.get_rng_state(), x.clone()
    one, two = (cases.BASES[name].fit(x, None, gen(1)) for _ in range(2))
    torch.testing.assert_close(one.log_prob(x), two.log_prob(x), rtol=0, atol=0)
    draws = [base.sample(5, gen(seed)) for base, seed in ((one, 2), (two, 2), (one, 3))]
    assert draws[0].equal(draws[1]) and not draws[0].equal(draws[2])
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(x, kept)
    assert not list(one.parameters())  # buffers, never trained
    if name != "TorchDistribution":
        again = type(one)(**one.state_dict())
        torch.testing.assert_close(again.log_prob(x), one.log_prob(x), rtol=0, atol=0)


def built(name, seed):
    """A network, and rows that go into it."""
    if name in cases.NETWORKS and name != "Critic":
        shape = (2,) if name == "MLPGenerator" else (1, 16, 16)
        return cases.NETWORKS[name].build(2, shape, gen(seed)), torch.randn(7, 2, generator=gen(3))
    shape = (1, 4, 4) if name in ("Conv", "Residual") else (2,)
    given = 2 if name == "Critic" else shape
    x = torch.randn(7, *shape, generator=gen(3))
    return cases.COMPONENTS[name].build(given, gen(seed)), x


@pytest.mark.parametrize("name", [*cases.ENERGIES, *cases.NETWORKS])
def test_a_network_is_its_seed_and_its_values_are_finite(name):
    before = torch.get_rng_state()
    (one, x), (two, _), (other, _) = (built(name, seed) for seed in (1, 1, 2))
    assert all(value.equal(two.state_dict()[key]) for key, value in state_of(one).items())
    assert any(not value.equal(other.state_dict()[key]) for key, value in state_of(one).items())
    value = one(x)
    assert torch.isfinite(value).all() and value.equal(two(x)) and len(value) == 7
    assert value.ndim == 1 or name in cases.NETWORKS
    assert torch.equal(torch.get_rng_state(), before)
