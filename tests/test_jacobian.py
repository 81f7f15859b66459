"""Singular values of a generator's Jacobian: against dense decompositions and linear generators."""

import math

import numpy as np
import pytest
import torch

from skebm.networks import (
    half_log_det,
    log_smallest,
    log_volume,
    singular_values,
    smallest_singular_value,
    value_and_jacobian,
)
from tests.closed_forms import assert_mean, assert_slopes
from tests.generators import gen, moved, randn

FLOOR = 1e-6
SHAPES = [(1, 1), (4, 1), (2, 2), (5, 2), (3, 3), (6, 3), (8, 8), (12, 8)]


class Linear(torch.nn.Module):
    """Row i is mapped by ``weight[i]``, so that a batch holds many Jacobians."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, z):
        return torch.einsum("nij,nj->ni", self.weight, z)


def matrix(singular, rows, n=1, seed=0):
    """Matrices (n, rows, d) with these singular values and random vectors, float64."""
    d, g = len(singular), gen(seed)
    u = torch.linalg.qr(torch.randn(n, rows, d, dtype=torch.float64, generator=g)).Q
    v = torch.linalg.qr(torch.randn(n, d, d, dtype=torch.float64, generator=g)).Q
    return u * torch.as_tensor(singular, dtype=torch.float64) @ v


def perceptron(d=2, width=7, out=3):
    nn = torch.nn
    layers = [nn.Linear(d, width), nn.PReLU(), nn.BatchNorm1d(width), nn.Linear(width, width)]
    return moved(nn.Sequential(*layers, nn.Tanh(), nn.Linear(width, out)))


def convolutional(d=3):
    nn = torch.nn
    layers = [nn.Linear(d, 8), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 3, 4, 2, 1)]
    return moved(nn.Sequential(*layers, nn.BatchNorm2d(3), nn.SiLU(), nn.Upsample(scale_factor=2)))


GENERATORS = {"perceptron": perceptron, "convolutional": convolutional}
LATENT = {"perceptron": 2, "convolutional": 3}
each_generator = pytest.mark.parametrize("name", GENERATORS)
each_shape = pytest.mark.parametrize(("rows", "d"), SHAPES)


# -- the Jacobian ----------------------------------------------------------------------------------


@each_generator
def test_jacobian_agrees_with_reverse_mode_row_by_row(name):
    generator, z = GENERATORS[name](), randn(4, LATENT[name])
    x, found = value_and_jacobian(generator, z)
    torch.testing.assert_close(x, generator(z).flatten(1))
    for i, row in enumerate(z):
        expected = torch.autograd.functional.jacobian(lambda r: generator(r[None]).flatten(), row)
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=1e-12)


@each_generator
def test_jacobian_has_a_graph_through_parameters_and_latents(name):
    generator, z = GENERATORS[name](), randn(3, LATENT[name]).requires_grad_()

    def loss():
        x, found = value_and_jacobian(generator, z)
        return found.square().sum() + x.sin().sum()

    assert_slopes(loss, [z, *generator.parameters()])


def test_a_jacobian_that_is_written_out_is_used():
    class WrittenOut(torch.nn.Module):
        def value_and_jacobian(self, z):
            return z, torch.full((len(z), 2, 2), 5.0)

    assert value_and_jacobian(WrittenOut(), torch.zeros(3, 2))[1].unique().tolist() == [5.0]


# -- singular values -------------------------------------------------------------------------------


@each_shape
def test_singular_values_agree_with_a_dense_decomposition(rows, d):
    weight = randn(50, rows, d)
    expected = torch.linalg.svdvals(weight).flip(-1)
    torch.testing.assert_close(singular_values(weight), expected, rtol=1e-9, atol=0)


@each_shape
def test_gradients_of_singular_values_agree_with_differences(rows, d):
    weight = randn(6, rows, d).requires_grad_()
    assert_slopes(lambda: (singular_values(weight) * torch.arange(1, d + 1)).sum(), [weight])


@pytest.mark.parametrize("condition", [1, 1.00001, 1.01, 10, 1e3, 1e4])
@pytest.mark.parametrize("rows", [2, 3, 40])
def test_two_singular_values_are_as_exact_as_float32_allows(condition, rows):
    weight = matrix([1 / condition, 1.0], rows, n=500).float()
    expected = torch.linalg.svdvals(weight.double()).flip(-1)
    error = (singular_values(weight).double() / expected - 1).abs().amax(0)
    eps = torch.finfo(torch.float32).eps
    assert error[0] < 5 * eps * condition  # a relative change of eps in J moves s_1 by as much
    assert error[1] < 5 * eps


def test_singular_values_ascend_where_they_are_nearly_equal():
    values = singular_values(matrix([1.0, 1.0], 3, n=500).float())
    assert (values[:, 0] <= values[:, 1]).all()


@pytest.mark.parametrize("rows", [2, 4])
@pytest.mark.parametrize(
    "columns",
    [
        [[0, 0], [0, 0]],
        [[1, 0], [0, 0]],
        [[0, 1], [0, 0]],
        [[1, 1], [1, 1]],
        [[1, 0], [0, 1]],
        [[1e-21, 50], [0, 50]],  # a square that underflows
    ],
    ids=str,
)
def test_two_singular_values_have_a_finite_gradient_everywhere(rows, columns):
    weight = torch.zeros(1, rows, 2)
    weight[0, :2] = torch.tensor(columns)
    weight.requires_grad_()
    values = singular_values(weight)
    torch.testing.assert_close(values, torch.linalg.svdvals(weight).flip(-1), atol=1e-7, rtol=1e-6)
    assert torch.autograd.grad(values.sum(), weight)[0].isfinite().all()


# -- half the log determinant ----------------------------------------------------------------------


@each_shape
def test_volume_agrees_with_the_gram_determinant(rows, d):
    weight = randn(30, rows, d)
    expected = torch.linalg.slogdet(weight.mT @ weight)[1] / 2
    torch.testing.assert_close(half_log_det(weight), expected, rtol=1e-9, atol=1e-9)


@each_shape
def test_gradient_of_the_volume_is_the_pseudo_inverse(rows, d):
    weight = randn(5, rows, d).requires_grad_()
    gradient = torch.autograd.grad(half_log_det(weight).sum(), weight)[0]
    torch.testing.assert_close(gradient, torch.linalg.pinv(weight).mT, rtol=1e-7, atol=1e-9)


@each_shape
def test_the_volume_can_be_differentiated_twice(rows, d):
    assert torch.autograd.gradgradcheck(half_log_det, randn(2, rows, d).requires_grad_())


@pytest.mark.parametrize(("rows", "d"), [(2, 2), (9, 2), (3, 3), (9, 3), (8, 8), (30, 8)])
def test_the_volume_survives_a_condition_number_of_1e4_in_float32(rows, d):
    weight = matrix(np.geomspace(1e-4, 1, d), rows, n=100).float()
    expected = torch.linalg.svdvals(weight.double()).log().sum(1)
    error = (half_log_det(weight) - expected).abs().max()
    assert error < 0.01  # through the Gram matrix, of condition 1e8, about 1


RANKS = [(1, 1, 0), (2, 2, 1), (4, 2, 1), (4, 2, 0), (3, 3, 2), (6, 3, 1), (8, 8, 7), (12, 8, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("rows", "d", "rank"), RANKS)
def test_singular_values_below_the_floor_count_as_the_floor(rows, d, rank, dtype):
    values = [2.0] * rank + [0.0] * (d - rank)
    weight = torch.cat([matrix(values, rows, n=3), matrix([2.0] * d, rows)]).to(dtype)
    weight.requires_grad_()
    volume = half_log_det(weight, floor=1e-4)
    expected = [rank * math.log(2) + (d - rank) * math.log(1e-4)] * 3 + [d * math.log(2)]
    torch.testing.assert_close(volume, torch.tensor(expected, dtype=dtype), rtol=1e-5, atol=1e-5)
    gradient = torch.autograd.grad(volume.sum(), weight)[0]
    inverse = torch.linalg.pinv(weight.detach(), atol=1e-4).mT
    torch.testing.assert_close(gradient, inverse, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "d"), SHAPES)
def test_exact_zeros_and_copies_of_columns_are_finite(rows, d):
    zeros, ones = torch.zeros(1, rows, d), torch.ones(1, rows, d)
    weight = torch.cat([zeros, ones, -3 * ones]).requires_grad_()
    for values in (half_log_det(weight), singular_values(weight)):
        gradient = torch.autograd.grad(values.sum(), weight)[0]
        assert values.isfinite().all() and gradient.isfinite().all()


def test_a_matrix_is_clamped_below_the_floor_alone():
    for smallest in (0.9 * FLOOR, 1.1 * FLOOR):
        for others in ([1.0], [1e3], [1.0, 1e3]):
            found = half_log_det(matrix([smallest, *others], 5), floor=FLOOR)
            expected = math.log(max(smallest, FLOOR)) + np.log(others).sum()
            assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_matrix_that_is_not_finite_spoils_its_own_row_alone(d):
    weight = randn(3, 4, d)
    weight[1, 0, 0] = torch.nan
    assert half_log_det(weight).isnan().tolist() == [False, True, False]


# -- the smallest singular value -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "exact"])
@each_shape
def test_exact_values_and_vectors_solve_the_problem(rows, d, method):
    weight = randn(20, rows, d)
    found = smallest_singular_value(Linear(weight), randn(20, d), solver=method)
    expected = torch.linalg.svdvals(weight)[:, -1]
    torch.testing.assert_close(found.value, expected, rtol=1e-9, atol=0)
    image = torch.linalg.vector_norm(weight @ found.vector[:, :, None], dim=(1, 2))
    torch.testing.assert_close(image, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.vector.norm(dim=1), torch.ones(20, dtype=torch.float64))
    assert found.residual.max() < 1e-12
    assert not any(field.requires_grad for field in found)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_one_iteration_is_exact_up_to_three_dimensions(d):
    weight = randn(50, 5, d)
    found = lobpcg(weight, 1)
    torch.testing.assert_close(found.value, torch.linalg.svdvals(weight)[:, -1], rtol=1e-8, atol=0)


def lobpcg(weight, n_iter, seed=0):
    z = torch.zeros(len(weight), weight.shape[2], dtype=weight.dtype)
    return smallest_singular_value(Linear(weight), z, solver="lobpcg", n_iter=n_iter, rng=gen(seed))


STEPS = [0, 1, 2, 5, 10, 20]
SPECTRA = {
    "normal, 16 of 784": (lambda: randn(20, 784, 16), [1.15, 1.07, 1.03, 1.0, 1.0, 1.0]),
    "factor 100, 10 of 10": (
        lambda: matrix(np.geomspace(0.01, 1, 10), 10, n=600),
        [34, 10.7, 8.4, 4.6, 2.9, 1.7],
    ),
    "factor 100, 128 of 128": (
        lambda: matrix(np.geomspace(0.01, 1, 128), 128, n=20),
        [34, 18, 13, 7.5, 4.6, 2.8],
    ),
    "normal, 128 of 3072": (lambda: randn(8, 3072, 128), [1.25, 1.13, 1.07, 1.03, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_lobpcg_comes_down_as_fast_as_it_should_and_never_below(name):
    make, table = SPECTRA[name]
    weight = make()
    truth = torch.linalg.svdvals(weight)[:, -1]
    ratios = torch.stack([lobpcg(weight, k).value / truth for k in STEPS])
    assert ratios.min() >= 1 - 1e-9
    assert (ratios.diff(dim=0) <= 1e-9).all()
    np.testing.assert_allclose(ratios.quantile(0.5, dim=1), table, rtol=0.15)


def test_lobpcg_reaches_the_smallest_value_and_says_so():
    weight = matrix(np.linspace(0.5, 2, 9), 12, n=30)
    early, late = lobpcg(weight, 2), lobpcg(weight, 100)
    torch.testing.assert_close(late.value, torch.full((30,), 0.5, dtype=torch.float64))
    assert late.residual.max() < 1e-6 < early.residual.min()


def test_float32_and_a_condition_number_of_1e3_still_converge():
    weight = matrix([1e-3, 0.1, 0.5, 0.6, 1.0], 7, n=100).float()
    found = lobpcg(weight, 40)
    assert (found.value / torch.linalg.svdvals(weight)[:, -1]).max() < 1.01


def test_float32_and_a_condition_number_of_1e4_are_exact_in_three_dimensions():
    weight = matrix([1e-4, 3e-4, 1.0], 7, n=100).float()
    truth = torch.linalg.svdvals(weight.double())[:, -1]
    assert (lobpcg(weight, 1).value / truth - 1).abs().max() < 0.01  # by the Gram matrix 1


def test_without_iterations_it_is_the_quotient_of_the_first_direction():
    weight, start = randn(4, 6, 5), torch.empty(4, 5, dtype=torch.float64).normal_(generator=gen(3))
    expected = (weight @ start[:, :, None]).norm(dim=(1, 2)) / start.norm(dim=1)
    torch.testing.assert_close(lobpcg(weight, 0, seed=3).value, expected)


def test_lobpcg_of_a_row_does_not_feel_the_others():
    weight, scale = randn(3, 9, 7), torch.tensor([1.0, 1e-5, 1e4], dtype=torch.float64)
    plain, scaled = lobpcg(weight, 4), lobpcg(weight * scale[:, None, None], 4)
    torch.testing.assert_close(scaled.value, plain.value * scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_leaves_the_others_alone(bad):
    weight = randn(3, 9, 7)
    expected = lobpcg(weight, 4).value
    weight[1, 0, 0] = bad
    found = lobpcg(weight, 4)
    torch.testing.assert_close(found.value[[0, 2]], expected[[0, 2]])
    assert found.vector.isfinite().all()  # the first direction is kept
    exact = smallest_singular_value(Linear(weight), torch.zeros(3, 7).double())
    assert exact.value.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("d", [2, 3, 8])
def test_lobpcg_of_a_degenerate_jacobian_is_finite(d):
    weight = torch.cat([torch.zeros(1, 9, d), torch.ones(1, 9, d)])
    found = lobpcg(weight, 6)
    assert all(field.isfinite().all() for field in found)
    assert found.value.max() < 1e-5


def test_lobpcg_never_forms_the_jacobian():
    class Forbidden(Linear):
        def value_and_jacobian(self, z):
            raise AssertionError("formed")

    generator, z = Forbidden(randn(2, 80, 65)), randn(2, 65)
    found = smallest_singular_value(generator, z, n_iter=2, rng=gen(0))  # 65: by itself
    assert found.value.shape == (2,)
    with pytest.raises(AssertionError, match="formed"):
        smallest_singular_value(generator, z, solver="exact")


# -- the envelope gradient -------------------------------------------------------------------------


@each_generator
def test_envelope_gradient_is_that_of_the_exact_singular_value(name):
    generator, z = GENERATORS[name](), randn(3, LATENT[name]).requires_grad_()
    tensors = [z, *generator.parameters()]
    vector = smallest_singular_value(generator, z).vector

    def exact():
        return singular_values(value_and_jacobian(generator, z)[1])[:, 0].log().sum()

    fixed = log_smallest(generator, z, vector).sum()
    torch.testing.assert_close(fixed, exact())
    found, expected = (
        torch.autograd.grad(f, tensors, allow_unused=True, materialize_grads=True)
        for f in (fixed, exact())
    )
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert_slopes(exact, tensors)


def test_the_gradient_at_a_wrong_vector_is_another():
    generator, z = perceptron(), randn(3, 2)
    weight = generator[0].weight
    vector = smallest_singular_value(generator, z).vector
    right, wrong = (
        torch.autograd.grad(log_smallest(generator, z, v).sum(), weight)[0]
        for v in (vector, vector.flip(1))
    )
    assert (right - wrong).abs().max() > 0.1


@pytest.mark.parametrize("method", ["logdet", "singular-value", "hutchinson"])
@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_a_generator_of_no_rank_has_finite_values_and_gradients(d, method):
    zeros = torch.zeros(2, 9, d)
    zeros[1, :, : d - 1] = 1.0  # of rank 1 if d > 1; the first is of rank 0
    generator, z = Linear(zeros), randn(2, d).float().requires_grad_()
    values = log_volume(generator, z, method, rng=gen(0))
    gradients = torch.autograd.grad(values.sum(), [z, generator.weight], materialize_grads=True)
    assert values.isfinite().all() and all(g.isfinite().all() for g in gradients)
    if method != "hutchinson":  # which does not see that one direction is lost
        assert float(values.detach()[0]) == pytest.approx(d * math.log(FLOOR), rel=1e-5)
        assert float(values.detach()[1]) <= d * math.log(100) + math.log(FLOOR)


# -- the term of the entropy -----------------------------------------------------------------------


@each_shape
def test_log_volume_of_linear_generators(rows, d):
    weight = randn(10, rows, d)
    generator, z = Linear(weight), randn(10, d)
    truth = torch.linalg.slogdet(weight.mT @ weight)[1] / 2
    lower = d * torch.linalg.svdvals(weight)[:, -1].log()
    torch.testing.assert_close(log_volume(generator, z), truth, rtol=1e-9, atol=1e-9)
    found = log_volume(generator, z, "singular-value")
    torch.testing.assert_close(found, lower, rtol=1e-9, atol=1e-9)
    assert (found <= truth + 1e-9).all()


@pytest.mark.parametrize("rows", [3, 5])
def test_all_estimates_agree_where_singular_values_are_equal(rows):
    generator, z = Linear(matrix([2.0] * 3, rows, n=20)), randn(20, 3)
    for method in ("logdet", "singular-value"):
        torch.testing.assert_close(
            log_volume(generator, z, method), torch.full((20,), 3 * math.log(2)).double()
        )
    many = log_volume(generator, z, "hutchinson", n_probes=10_000, rng=gen(0))
    assert_mean(many.detach(), 3 * math.log(2), largest_stderr=0.01)


@each_generator
def test_a_written_out_jacobian_gives_the_same_singular_value(name):
    class WrittenOut(torch.nn.Sequential):
        def value_and_jacobian(self, z):
            return value_and_jacobian(self[0], z)

    generator, z = GENERATORS[name](), randn(4, LATENT[name])
    tensors = list(generator.parameters())
    found = log_volume(WrittenOut(generator), z, "singular-value").sum()
    vector = smallest_singular_value(generator, z).vector
    expected = LATENT[name] * log_smallest(generator, z, vector).sum()
    torch.testing.assert_close(found, expected)
    for pair in zip(
        *(torch.autograd.grad(f, tensors, materialize_grads=True) for f in (found, expected)),
        strict=True,
    ):
        torch.testing.assert_close(*pair)


@pytest.mark.parametrize("n_probes", [1, 4])
def test_hutchinson_estimates_the_frobenius_norm(n_probes):
    weight = matrix([0.2, 1.0, 1.5], 5).expand(20_000, 5, 3)
    z = torch.zeros(20_000, 3, dtype=torch.float64)
    found = log_volume(Linear(weight), z, "hutchinson", n_probes=n_probes, rng=gen(0)).detach()
    mean_square = (0.04 + 1 + 2.25) / 3
    assert_mean((2 / 3 * found).exp(), mean_square, largest_stderr=0.01)
    # an upper bound of the log volume in the limit
    assert 1.5 * math.log(mean_square) > math.log(0.2 * 1.5)


def test_one_probe_of_equal_singular_values_is_low_by_a_known_amount():
    weight = matrix([1.0, 1.0], 4).expand(20_000, 4, 2)
    z = torch.zeros(20_000, 2, dtype=torch.float64)
    found = log_volume(Linear(weight), z, "hutchinson", rng=gen(1)).detach()
    assert_mean(found, -np.euler_gamma, largest_stderr=0.01)  # log of an exponential variable


def test_unconverged_iterations_are_too_large():
    weight = matrix(np.geomspace(0.01, 1, 10), 10, n=20)
    generator, z = Linear(weight), randn(20, 10)
    exact, few = (
        log_volume(generator, z, "singular-value", solver=s, n_iter=2, rng=gen(0))
        for s in ("auto", "lobpcg")
    )
    assert (few >= exact).all() and few.median() > exact.median() + 10


@pytest.mark.parametrize("method", ["logdet", "singular-value", "hutchinson"])
@each_generator
def test_log_volume_trains_parameters_and_moves_latents(name, method):
    generator, z = GENERATORS[name](), randn(3, LATENT[name]).requires_grad_()
    assert_slopes(
        lambda: log_volume(generator, z, method, n_probes=2, rng=gen(0)).sum(),
        [z, *generator.parameters()],
    )


def test_draws_come_from_the_given_generator_alone():
    weight, z = randn(5, 9, 7).float(), torch.zeros(5, 7)
    before = torch.get_rng_state()
    for method in ("singular-value", "hutchinson"):
        first, again, other = (
            log_volume(Linear(weight), z, method, solver="lobpcg", n_iter=1, rng=gen(s))
            for s in (0, 0, 1)
        )
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert first.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)


# -- bad calls -------------------------------------------------------------------------------------

PLAIN = torch.nn.Linear(3, 4)
LATENTS, LOBPCG = torch.zeros(2, 3), {"solver": "lobpcg"}


@pytest.mark.parametrize(
    ("error", "message", "function", "args", "options"),
    [
        (ValueError, "z must be a matrix .*got shape \\(3,\\)", log_volume, (LATENTS[0],), {}),
        (ValueError, "method must be one of .*got 'svd'", log_volume, (LATENTS, "svd"), {}),
        (ValueError, "solver .*got 'svd'", log_volume, (LATENTS,), {"solver": "svd"}),
        (ValueError, "n_probes .*got 0", log_volume, (LATENTS, "hutchinson"), {"n_probes": 0}),
        (ValueError, "floor .*got -1", log_volume, (LATENTS,), {"floor": -1}),
        (TypeError, "rng must be .*got None", log_volume, (LATENTS, "hutchinson"), {}),
        (ValueError, "one of .*got 'x'", smallest_singular_value, (LATENTS,), {"solver": "x"}),
        (ValueError, "n_iter .*got -2", smallest_singular_value, (LATENTS,), {"n_iter": -2}),
        (TypeError, "rng must .*got None", smallest_singular_value, (LATENTS,), LOBPCG),
        (ValueError, "vector .*got \\(2, 1\\)", log_smallest, (LATENTS, LATENTS[:, :1]), {}),
        (ValueError, "floor .*got 0", log_smallest, (LATENTS, LATENTS), {"floor": 0}),
    ],
)
def test_bad_calls_are_named(error, message, function, args, options):
    with pytest.raises(error, match=message):
        function(PLAIN, *args, **options)


@pytest.mark.parametrize("method", ["exact", "lobpcg"])
def test_an_output_narrower_than_the_latents_is_refused(method):
    narrow = torch.nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"D >= d >= 1, got \(2, 2, 3\)"):
        smallest_singular_value(narrow, LATENTS, solver=method, rng=gen(0))
    for function in (singular_values, half_log_det):
        with pytest.raises(ValueError, match=r"D >= d >= 1, got \(5, 2, 3\)"):
            function(torch.zeros(5, 2, 3))
