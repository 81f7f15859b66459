"""Train an energy and a generator by bounds of the likelihood from both sides."""

from __future__ import annotations

__all__ = ["BidirectionalBounds"]

import math

import torch

from skebm._components import check_choice, check_number
from skebm.energies import Model, differentiable_score, directional_derivative
from skebm.networks import (
    FeedForward,
    GeneratorComponent,
    MLPGenerator,
    log_volume,
    value_and_jacobian,
)
from skebm.networks._modes import evaluating
from skebm.networks.jacobian import MOST_EXACT, push_forward
from skebm.objectives._base import Draw, Objective, Optimization, State, descend
from skebm.objectives._generator_entropy import (
    EntropyTerm,
    information_term,
    jacobian_term,
    posterior_term,
)
from skebm.objectives._held_out import HeldOut

BOUNDS = ("bidirectional", "zero-centered-gp", "wgan-gp", "wgan-0gp")
BY_JACOBIAN = ("logdet", "singular-value", "hutchinson")
ENTROPIES = (*BY_JACOBIAN, "mutual-information", "variational")
PROBES = ("gaussian", "sphere")
WEIGHTS = {"zero-centered-gp": 0.01, "wgan-gp": 10.0, "wgan-0gp": 0.01}  # of "auto"
BIDIRECTIONAL_WEIGHT = 0.001  # over the latent dimension: appendix C
MOST_TANGENTS = 4096  # columns of Jacobians per update: beyond, fewer rows carry the entropy
FEWEST_ROWS = 16
VARIATIONAL_NOISE = 0.05
STATISTICS = (128, 128)
FLOOR = 1e-6


class BidirectionalBounds(Objective):
    r"""Alternate an energy that lowers an upper bound and a generator that raises a lower one.

    With U the potential of the model, G the generator, J its Jacobian and z from N(0, I_d), the
    generator maximizes

    .. math:: \lfloor L \rfloor = \mathrm{mean}\, U(x) - \mathrm{mean}\, U(G(z)) + H(z)
       + \mathrm{mean} \tfrac12 \log\det J^T J

    and the energy minimizes :math:`\lfloor L \rfloor + [w P - \zeta]_+` with

    .. math:: P = \mathrm{mean}\, |\nabla U(G(z)) J + \nabla_z \log p_g(G(z))|^p .

    Parameters
    ----------
    bound : {"bidirectional", "zero-centered-gp", "wgan-gp", "wgan-0gp"}, default="bidirectional"
        What holds the energy back: P; the squared slope at the data (the paper's EBM-0GP); or a
        Wasserstein critic's penalty, with interpolated rows (``"wgan-gp"``) or the data
        (``"wgan-0gp"``), and no entropy: then the energy is a critic and no density.
    entropy : {"logdet", "singular-value", "hutchinson", "mutual-information", "variational"}
        The generator's entropy: the exact log determinant (default), the paper's bound
        :math:`d \log s_1`, Hutchinson's estimate, an estimate of information by a further network
        (MEG), or the posterior gradient of VERA. The last two give no density for P and go with
        ``bound="zero-centered-gp"``.
    generator : GeneratorComponent, default=None
        The generator; None means `MLPGenerator`.
    latent_dim : int, default=None
        d; None means the width of a row.
    observation_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on generated rows, standardized units; ``"auto"`` is
        0.05 for ``"variational"``, which needs it, else 0.
    margin : float, default=0.0
        :math:`\zeta`, nats. With the paper's 1 the penalty seldom acts.
    penalty_weight : float or "auto", default="auto"
        w; ``"auto"`` is 0.001 / d for ``"bidirectional"`` (0.001 with ``probe="sphere"``), 10 for
        ``"wgan-gp"`` and 0.01 for the others.
    penalty_exponent : float, default=2.0
        p, at least 1. For 2 one random direction estimates P; else its whole vector is computed, at
        twice the cost or more.
    probe : {"gaussian", "sphere"}, default="gaussian"
        Directions v of Hutchinson's estimate; ``"sphere"`` divides by :math:`|v|^2`.
    entropy_weight : float, default=1.0
        Factor on the generator's entropy; any other than 1 trains a tempered density.
    fold_penalty : float, default=10.0
        How hard latents whose Jacobian has the rarer orientation are pushed back, for a square
        generator with ``"logdet"``; 0 is the paper.
    n_lobpcg : int, default=10
        Iterations for :math:`s_1` beyond 64 latent dimensions.
    image_shape : tuple of int, default=None
        (channels, height, width) of flattened rows, for generators of images.
    optimization : Optimization, default=None
        Of the energy; None means the defaults.
    generator_optimization : Optimization, default=None
        Of the generator; None means that of the energy.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    No chain and no normalizer. An update generates two batches and takes one directional derivative
    of the energy; Jv and the density's slope are constants in it. Jacobians are computed for at
    most 4096 columns per update: with many latent dimensions a random part of the batch carries the
    entropy and the penalty, which leaves their expectation.

    The history holds, on training batches: ``lower_bound`` (nats, standardized space), ``penalty``
    (the mean of which P is the limit), ``hinge_open`` (of ``"bidirectional"``: share of updates in
    which w P exceeded the margin), ``fold``, ``s1_low`` and ``s1_median`` (the 5 % quantile and
    median of the smallest singular value, in standardized units, over some of the batch; beyond 64
    latent dimensions those of ``"singular-value"`` are LOBPCG's, too large where it is unfinished),
    the mean energies of data and generated rows, ``information`` of MEG (nats) and
    ``posterior_width`` of VERA.
    ``validate`` judges nothing: a game has no best snapshot.

    VERA's score of the generator's density rests on 20 draws per row and is too small, the more so
    with many latents. The energy's slope is taken at
    rows of the evaluation mode, as the Jacobian is; the paper's code takes it in training mode.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". Eqs. 8-11, 15 and 18-20, sections 4 and 5.1,
       appendix C.

    Examples
    --------
    >>> from skebm.objectives import BidirectionalBounds
    >>> BidirectionalBounds(margin=1.0)
    BidirectionalBounds(margin=1.0)
    """

    def __init__(
        self,
        bound: str = "bidirectional",
        entropy: str = "logdet",
        generator: GeneratorComponent | None = None,
        latent_dim: int | None = None,
        observation_noise: float | str = "auto",
        margin: float = 0.0,
        penalty_weight: float | str = "auto",
        penalty_exponent: float = 2.0,
        probe: str = "gaussian",
        entropy_weight: float = 1.0,
        fold_penalty: float = 10.0,
        n_lobpcg: int = 10,
        image_shape: tuple[int, ...] | None = None,
        optimization: Optimization | None = None,
        generator_optimization: Optimization | None = None,
    ) -> None:
        self.bound = bound
        self.entropy = entropy
        self.generator = generator
        self.latent_dim = latent_dim
        self.observation_noise = observation_noise
        self.margin = margin
        self.penalty_weight = penalty_weight
        self.penalty_exponent = penalty_exponent
        self.probe = probe
        self.entropy_weight = entropy_weight
        self.fold_penalty = fold_penalty
        self.n_lobpcg = n_lobpcg
        self.image_shape = image_shape
        self.optimization = optimization
        self.generator_optimization = generator_optimization

    def check(self) -> None:
        """Raise the house's errors on a bad parameter."""
        check_choice("bound", self.bound, BOUNDS)
        check_choice("entropy", self.entropy, ENTROPIES)
        check_choice("probe", self.probe, PROBES)
        if self.latent_dim is not None:
            check_number("latent_dim", self.latent_dim, low=1, integer=True)
        for name in ("observation_noise", "penalty_weight"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value == "auto"):
                check_number(name, value, low=0, remedy="Or use 'auto'.")
        check_number("margin", self.margin, low=0)
        check_number("penalty_exponent", self.penalty_exponent, low=1)
        check_number("entropy_weight", self.entropy_weight, low=0)
        check_number("fold_penalty", self.fold_penalty, low=0)
        check_number("n_lobpcg", self.n_lobpcg, low=1, integer=True)
        if self.bound == "bidirectional" and self.entropy not in BY_JACOBIAN:
            raise ValueError(
                f"entropy must be one of {list(BY_JACOBIAN)} with bound='bidirectional', got "
                f"{self.entropy!r}, which gives no density of the generator. Use "
                "bound='zero-centered-gp'."
            )
        if self.entropy == "variational" and self.noise() == 0:
            raise ValueError(
                "observation_noise must be > 0 with entropy='variational', got 0. Use 'auto'."
            )

    def noise(self) -> float:
        """Return the standard deviation of the noise on generated rows, standardized units."""
        if self.observation_noise == "auto":
            return VARIATIONAL_NOISE if self.entropy == "variational" else 0.0
        return float(self.observation_noise)

    def latents(self, shape: tuple[int, ...]) -> int:
        """Return d for rows of this shape."""
        return math.prod(shape) if self.latent_dim is None else self.latent_dim

    def weight(self, latent_dim: int) -> float:
        """Return w."""
        if self.penalty_weight != "auto":
            return float(self.penalty_weight)
        if self.bound != "bidirectional":
            return WEIGHTS[self.bound]
        divided = self.probe == "sphere" and self.penalty_exponent == 2  # by |v|^2 already
        return BIDIRECTIONAL_WEIGHT / (1 if divided else latent_dim)

    def build_generator(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh generator that maps latents to flat rows of this shape."""
        component = self.generator or MLPGenerator()
        latent_dim = self.latents(shape)
        if latent_dim > math.prod(shape):
            raise ValueError(
                f"latent_dim must be at most the {math.prod(shape)} values of a row, got "
                f"{latent_dim}. The generator's density needs a map onto no fewer dimensions."
            )
        shape = (math.prod(shape),) if component.flat else shape
        module = component.build(latent_dim, shape, rng)
        return module if len(shape) == 1 else FlatRows(module)

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the generator, what its entropy needs, and the optimizers."""
        self.check()
        shape = tuple(self.image_shape or x.shape[1:])
        module = self.build_generator(shape, rng).train()
        settings = self.optimization or Optimization()
        generator_settings = self.generator_optimization or settings
        modules: dict[str, torch.nn.Module] = {"generator": module}
        optimizers = {
            "energy": settings.build(model.energy),
            "generator": generator_settings.build(module),
        }
        d = self.latents(shape)
        if self.entropy == "mutual-information":
            modules["statistics"] = FeedForward(x.shape[1] + d, STATISTICS, "silu", rng)
        if self.entropy == "variational":
            modules["posterior"] = LogWidth(d).to(x.device)
        for name in ("statistics", "posterior"):
            if name in modules:
                optimizers[name] = generator_settings.build(modules[name])
        return State(optimizers, modules, {"latent_dim": torch.tensor(d)})

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Take one step of the energy (Eq. 20), then one of the generator (Eq. 11)."""
        x = draw()
        network, d = state.modules["generator"], int(state.buffers["latent_dim"])
        z = self._latents(len(x), d, x, rng)
        with torch.no_grad():
            fake = self._generated(network, z, rng)
        energy = model.energy(torch.cat([x, fake])) / model.temperature
        at_data, at_fake = energy[: len(x)].mean(), energy[len(x) :].mean()
        penalty = self._penalty(model, network, x, fake, z, rng)
        weighted = self.weight(d) * penalty
        hinge = (weighted - self.margin).relu() if self.bound == "bidirectional" else weighted
        descend(state.optimizers["energy"], at_data - at_fake + hinge)
        row = self._improve(model, state, len(x), x, rng)
        generated = row.pop("potential")
        if self.entropy in BY_JACOBIAN and not self.bound.startswith("wgan"):
            mean_potential = model.potential(x).mean()
            prior = 0.5 * d * (1 + math.log(2 * math.pi))
            row["lower_bound"] = mean_potential - generated + prior + row["volume"]
        row.pop("volume")
        if self.bound == "bidirectional":
            row["hinge_open"] = (weighted.detach() > self.margin).to(x.dtype)
        return state, row | {
            "data_energy": at_data.detach(),
            "generated_energy": at_fake.detach(),
            "penalty": penalty.detach(),
        }

    def validate(
        self, model: Model, state: State, batch: torch.Tensor, rng: torch.Generator
    ) -> HeldOut | None:
        """Judge nothing: the players of a game have no best snapshot."""
        return None

    def recover(self, model: Model, state: State, x: torch.Tensor, rng: torch.Generator) -> State:
        """Start anew with a fresh generator beside the energy that was put back."""
        fresh = self.init(model, x, rng)
        for name, optimizer in fresh.optimizers.items():
            old = state.optimizers[name].param_groups[0]
            optimizer.param_groups[0].update({k: v for k, v in old.items() if k not in ("params",)})
        return fresh

    def penalty_terms(
        self,
        model: Model,
        network: torch.nn.Module,
        z: torch.Tensor,
        rng: torch.Generator,
    ) -> torch.Tensor:
        """Return the terms (n,) whose mean estimates P, with a graph to the energy alone."""
        if self.penalty_exponent != 2:
            return self._whole_penalty(model, network, z, rng)
        v = torch.empty_like(z).normal_(generator=rng)
        x, along, slope = self._directions(network, z, v, rng)
        residual = directional_derivative(model.energy, x, along) / model.temperature
        residual = residual - (z * v).sum(1) - slope
        if model.base is not None:
            residual = residual - (model.base.log_prob_and_score(x)[1] * along).sum(1)
        terms = residual.square()
        return terms if self.probe == "gaussian" else terms / v.square().sum(1)

    def _improve(
        self,
        model: Model,
        state: State,
        n: int,
        like: torch.Tensor,
        rng: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Take one step of the generator; return what the history holds of it."""
        network, d = state.modules["generator"], int(state.buffers["latent_dim"])
        z = self._latents(n, d, like, rng)
        row = {"volume": like.new_zeros(())}
        x = self._generated(network, z, rng)
        potential, score = model.potential_and_score(x.detach())
        row["potential"] = potential.mean()
        loss = -(score * x).sum(1).mean()
        players = ["generator"]
        if self.bound.startswith("wgan"):
            pass
        elif self.entropy in BY_JACOBIAN:
            term = self._entropy(network, z, rng)
            loss = loss + self.entropy_weight * term.loss
            low, median = term.smallest.quantile(z.new_tensor([0.05, 0.5])).unbind()
            row |= {"volume": term.volume.mean(), "fold": term.fold}
            row |= {"s1_low": low, "s1_median": median}
        elif self.entropy == "mutual-information":
            statistics = state.modules["statistics"]
            assert isinstance(statistics, FeedForward)
            information = information_term(statistics, x, z)
            loss, players = loss + self.entropy_weight * information, [*players, "statistics"]
            row["information"] = 2 * math.log(2) - information.detach()
        else:
            posterior = state.modules["posterior"]
            assert isinstance(posterior, LogWidth)
            with evaluating(network):
                entropy_loss, width_loss = posterior_term(
                    network, posterior.log_width, x, z, self.noise(), rng
                )
            descend(state.optimizers["posterior"], width_loss)
            loss = loss + self.entropy_weight * entropy_loss
            row["posterior_width"] = posterior.log_width.detach().exp().mean()
        for name in players:
            state.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        for name in players:
            state.optimizers[name].step()
        return row

    def _entropy(
        self, network: torch.nn.Module, z: torch.Tensor, rng: torch.Generator
    ) -> EntropyTerm:
        z = self._some(z)
        with evaluating(network):
            return jacobian_term(network, z, self.entropy, self.n_lobpcg, self.fold_penalty, rng)

    def _penalty(
        self,
        model: Model,
        network: torch.nn.Module,
        x: torch.Tensor,
        fake: torch.Tensor,
        z: torch.Tensor,
        rng: torch.Generator,
    ) -> torch.Tensor:
        if self.bound == "bidirectional":
            return self.penalty_terms(model, network, self._some(z), rng).mean()
        if self.bound == "wgan-gp":
            u = torch.rand(len(x), 1, generator=rng, device=x.device)
            return (_slope(model, torch.lerp(fake, x, u)).norm(dim=1) - 1).square().mean()
        return _slope(model, x).square().sum(1).mean()

    def _whole_penalty(
        self,
        model: Model,
        network: torch.nn.Module,
        z: torch.Tensor,
        rng: torch.Generator,
    ) -> torch.Tensor:
        """Return the p-th powers of the norms of the whole vector of Eq. 18."""
        z = z.detach().requires_grad_(True)
        with evaluating(network):
            x, jacobian = value_and_jacobian(network, z)
            volume = log_volume(network, z, self.entropy, n_iter=self.n_lobpcg, rng=rng)
            (by_z,) = torch.autograd.grad(volume.sum(), z, materialize_grads=True)
        slope = _slope(model, x.detach())
        vector = torch.einsum("nD,nDd->nd", slope, jacobian.detach()) - z.detach() - by_z
        return (vector.square().sum(1) + FLOOR**2).pow(0.5 * self.penalty_exponent)

    def _directions(
        self, network: torch.nn.Module, z: torch.Tensor, v: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return G(z), J v and the derivative of the log volume along v, as constants."""
        written_out = getattr(network, "jacobian_and_change", None)
        if self.entropy == "logdet" and written_out is not None:
            x, jacobian, change = written_out(z, v)
            along = torch.einsum("nDd,nd->nD", jacobian, v)
            return x, along, volume_change(jacobian, change)
        z = z.detach().requires_grad_(True)
        with evaluating(network):
            volume = log_volume(network, z, self.entropy, n_iter=self.n_lobpcg, rng=rng)
            slope = torch.zeros_like(z)
            if volume.requires_grad:  # not where it is the same everywhere
                (slope,) = torch.autograd.grad(volume.sum(), z, materialize_grads=True)
            x, along = push_forward(network, z.detach(), v[:, :, None])
        return x.detach(), along[:, :, 0].detach(), (slope * v).sum(1).detach()

    def _generated(
        self, network: torch.nn.Module, z: torch.Tensor, rng: torch.Generator
    ) -> torch.Tensor:
        x = network(z)
        noise = self.noise()
        return x + noise * torch.empty_like(x).normal_(generator=rng) if noise else x

    def _some(self, z: torch.Tensor) -> torch.Tensor:
        """Return the rows that carry Jacobians."""
        iterated = self.entropy == "singular-value" and z.shape[1] > MOST_EXACT
        if self.entropy == "hutchinson" or iterated:
            return z  # no Jacobian is formed
        return z[: max(MOST_TANGENTS // z.shape[1], FEWEST_ROWS)]

    def _latents(self, n: int, d: int, like: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return torch.empty(n, d, device=like.device).normal_(generator=rng)


class LogWidth(torch.nn.Module):
    """Logarithms of the posterior's standard deviations, one per latent dimension."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.log_width = torch.nn.Parameter(torch.full((latent_dim,), math.log(0.1)))


class FlatRows(torch.nn.Module):
    """A generator of images behind the contract of flat rows."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to flat rows (n, D)."""
        return self.module(z).flatten(1)


def volume_change(jacobian: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Return the derivative of half log det J^T J (n,) given that of J (n, D, d); 0 where flat."""
    d = jacobian.shape[-1]
    if jacobian.shape[1:] == (2, 2):
        (a, b), (c, e) = (row.unbind(-1) for row in jacobian.unbind(1))
        (p, q), (r, s) = (row.unbind(-1) for row in change.unbind(1))
        volume = a * e - b * c
        along = p * e + a * s - q * c - b * r
        flat = volume.abs() <= FLOOR * jacobian.flatten(1).norm(dim=1)
        return torch.where(flat, 0.0, along / torch.where(flat, 1.0, volume))
    orthogonal, upper = torch.linalg.qr(jacobian)
    flat = upper.diagonal(dim1=1, dim2=2).abs().amin(1) < FLOOR
    upper = torch.where(flat[:, None, None], torch.eye(d, device=upper.device), upper)
    turned = torch.linalg.solve_triangular(upper, orthogonal.mT @ change, upper=True)
    return torch.where(flat, 0.0, turned.diagonal(dim1=1, dim2=2).sum(1))


def _slope(model: Model, x: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the potential (n, D) with a graph to the energy's parameters."""
    slope = -differentiable_score(model.energy, x) / model.temperature
    return slope if model.base is None else slope - model.base.log_prob_and_score(x)[1]
