"""Parameter objects: encoded, found by alias, and refused with the house's errors."""

import json
import re

import numpy as np
import pytest

from skebm._components import Component, check_choice, check_number, decode, encode, resolve
from skebm.bases import BaseComponent, Gaussian, Mixture
from skebm.objectives import ContrastiveDivergence
from skebm.partition import Quadrature
from skebm.samplers import Langevin


def test_set_params_reaches_into_components():
    objective = ContrastiveDivergence(sampler=Langevin(0.3))
    objective.set_params(sampler__step_size=0.7)
    assert objective.sampler.step_size == 0.7
    with pytest.raises(ValueError, match="stepsize"):
        objective.set_params(sampler__stepsize=0.7)


def test_encode_keeps_tuples_and_plain_numbers():
    value = (1, [2.5, None, True], "a", (np.int64(3), np.float32(0.5)), {"b": (1,)})
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == (1, [2.5, None, True], "a", (3, 0.5), {"b": (1,)}) and type(back[3][0]) is int


class Foreign(Component):
    pass


@pytest.mark.parametrize("value", [Foreign(), abs, {"a": abs}, object()])
def test_encode_refuses_what_has_no_plain_form(value):
    with pytest.raises(TypeError, match=r"not part of skebm|no plain form"):
        encode(value)


def test_equal_components_with_arrays_compare():
    one, two = (Quadrature(domain=(np.zeros(2), np.ones(2))) for _ in range(2))
    assert one == one and one == two


# -- resolve and checks ----------------------------------------------------------------------------


def test_resolve_takes_aliases_and_instances():
    choices = {"gaussian": Gaussian, "mixture": Mixture}
    mine = Mixture(3)
    assert resolve("gaussian", choices, BaseComponent, "base") == Gaussian()
    assert resolve(mine, choices, BaseComponent, "base") is mine


@pytest.mark.parametrize(
    "value, rule, error, message",
    [
        (-1, {"low": 0}, ValueError, "k must be a number >= 0, got -1."),
        (0, {"low": 0, "open_low": True}, ValueError, "k must be a number > 0, got 0."),
        (2, {"low": 0, "high": 1}, ValueError, "k must be a number >= 0 and <= 1, got 2."),
        (1.5, {"low": 1, "integer": True}, TypeError, "k must be an integer >= 1, got 1.5."),
        (True, {"integer": True}, TypeError, "k must be an integer, got True."),
        ("3", {}, TypeError, "k must be a number, got '3'."),
        (None, {}, TypeError, "k must be a number, got None."),
        (float("nan"), {"low": 0}, ValueError, "k must be a number >= 0, got nan."),
        (float("inf"), {}, ValueError, "k must be a number, got inf."),
        (-1, {"low": 0, "remedy": "Use 3."}, ValueError, "k must be a number >= 0, got -1. Use 3."),
    ],
)
def test_numbers_out_of_range(value, rule, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        check_number("k", value, **rule)


@pytest.mark.parametrize("value", [0, 1.0, np.float32(0.5), np.int64(1), 10**30])
def test_numbers_in_range(value):
    check_number("k", value, low=0)


def test_choices():
    check_choice("k", "a", ("a", None))
    check_choice("k", None, ("a", None))
    with pytest.raises(ValueError, match=r"^k must be one of \['a', None\], got 'b'\. Use a\.$"):
        check_choice("k", "b", ("a", None), "Use a.")
    with pytest.raises(TypeError, match=r"^k must be one of \['a'\], got 3\.$"):
        check_choice("k", 3, ("a",))


# -- one Langevin kernel, four notations: algorithms.md 0.2 ----------------------------------------


@pytest.mark.parametrize(
    "sampler, drift, noise, temperature",
    [
        (Langevin.from_alpha_beta(1e-3, 1e-4), 5e-4, 0.01, 0.1),  # USP toy
        (Langevin.from_alpha_beta(2.0, 0.01), 1.0, 0.1, 0.005),  # USP FMNIST
        (Langevin.from_eta(0.01), 0.01, 0.02**0.5, 1.0),  # SP toy
        (Langevin.from_eta(5e-6), 5e-6, 1e-5**0.5, 1.0),  # SP MNIST
        (Langevin.from_temperature(0.05, 5e-3), 0.05, 5e-4**0.5, 5e-3),  # HCD rings
        (Langevin.from_temperature(1.0, 5e-5), 1.0, 0.01, 5e-5),  # HCD images
        (Langevin.from_epsilon(0.02), 0.01, 0.02**0.5, 1.0),  # LSD Eq. 18
        (Langevin.from_decoupled(1.0, 0.01), 1.0, 0.01, 5e-5),  # LSD Eq. 19
        (Langevin.from_decoupled(1.0, 0.125), 1.0, 0.125, 7.8125e-3),  # Anatomy toy
        (Langevin.from_decoupled(1.0, 7.5e-3), 1.0, 7.5e-3, 2.8125e-5),  # Anatomy flowers
    ],
)
def test_langevin_notations(sampler, drift, noise, temperature):
    assert sampler.step_size == pytest.approx(drift, rel=1e-12)
    assert sampler.noise_scale == pytest.approx(noise, rel=1e-12)
    assert sampler.effective_temperature == pytest.approx(temperature, rel=1e-9)
