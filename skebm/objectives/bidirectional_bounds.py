"""Train an energy and a generator by bounds of the likelihood from both sides."""

from __future__ import annotations

__all__ = ["BidirectionalBounds"]

import math
from typing import NamedTuple

import torch

from skebm._components import check_number
from skebm.energies import Model, as_energy, energy_and_score
from skebm.networks import (
    FeedForward,
    GeneratorComponent,
    GeneratorNetwork,
    MLPGenerator,
    log_volume,
    value_and_jacobian,
)
from skebm.networks._evaluating import evaluating
from skebm.networks.jacobian import MOST_EXACT, push_forward
from skebm.objectives._base import (
    Draw,
    HeldOut,
    Likelihood,
    Objective,
    Optimization,
    State,
    descend,
)
from skebm.objectives._generator_entropy import (
    EntropyTerm,
    information_term,
    jacobian_term,
    logdet_term,
    posterior_term,
)
from skebm.objectives.game_settings import BY_JACOBIAN, GeneratorEntropy, UpperBound

WEIGHTS = {"zero-centered-gp": 0.01, "wgan-gp": 10.0, "wgan-0gp": 0.01}  # of "auto"
IMAGE_LATENTS = 128
BIDIRECTIONAL_WEIGHT = 0.001  # over the latent dimension: appendix C
MOST_TANGENTS = 1024  # columns of Jacobians per update: beyond, fewer rows carry the entropy
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
    bound : UpperBound or {"bidirectional", "zero-centered-gp", "wgan-gp", "wgan-0gp"}
        What holds the energy back: P (default); the squared slope at the data (the paper's
        EBM-0GP); or a Wasserstein critic's penalty, and no entropy: then the energy is a critic and
        no density.
    entropy : GeneratorEntropy or str, default="logdet"
        The generator's entropy: ``"logdet"``, ``"singular-value"``, ``"hutchinson"``,
        ``"mutual-information"`` or ``"variational"``. The last two give no density for P and go
        with ``bound="zero-centered-gp"``.
    generator : GeneratorComponent, default=None
        The generator with its latents, noise and optimizer; None means `MLPGenerator`.
    penalty_weight : float or "auto", default="auto"
        w; ``"auto"`` is 0.001 / d for ``"bidirectional"`` (0.001 with ``probe="sphere"``), 10 for
        ``"wgan-gp"`` and 0.01 for the others.
    margin : float, default=0.0
        :math:`\zeta`, nats. With the paper's 1 the penalty seldom acts.
    image_shape : tuple of int, default=None
        (channels, height, width) of flattened rows, for generators of images.
    optimization : Optimization, default=None
        Of the energy; None means the defaults.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    No chain and no normalizer. An update takes one directional derivative of the energy; Jv and the
    density's slope are constants in it. With ``"logdet"``, p = 2, `MLPGenerator` without batch
    normalization and no noise both players move by one batch of generated rows: the backward pass
    for the entropy brings the density's slope too. Otherwise each has its own, as in the paper.
    Jacobians are computed for at most 1024 columns per update: with many latent dimensions a random
    part of the batch carries the entropy and the penalty, which leaves their expectation.

    The history holds, on training batches: ``lower_bound`` (nats, standardized space), ``penalty``
    (the mean of which P is the limit), ``hinge_open`` (of ``"bidirectional"``: share of updates in
    which w P exceeded the margin), ``fold``, ``s1_low`` and ``s1_median`` (the 5 % quantile and
    median of the smallest singular value, in standardized units, over some of the batch; beyond 64
    latent dimensions those of ``"singular-value"`` are LOBPCG's, too large where it is unfinished),
    the mean energies of data and generated rows, ``information`` of MEG (nats) and
    ``posterior_width`` of VERA.
    ``judge`` judges nothing: a game has no best snapshot.

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
        bound: UpperBound | str = "bidirectional",
        entropy: GeneratorEntropy | str = "logdet",
        generator: GeneratorComponent | None = None,
        penalty_weight: float | str = "auto",
        margin: float = 0.0,
        image_shape: tuple[int, ...] | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        self.bound = bound
        self.entropy = entropy
        self.generator = generator
        self.penalty_weight = penalty_weight
        self.margin = margin
        self.image_shape = image_shape
        self.optimization = optimization

    def check(self) -> None:
        """Raise the house's errors on a bad parameter."""
        self.upper.check()
        self.spread.check()
        self.maker.check()
        if self.penalty_weight != "auto":
            check_number("penalty_weight", self.penalty_weight, low=0, remedy="Or use 'auto'.")
        check_number("margin", self.margin, low=0)
        if self.upper.kind == "bidirectional" and not self.spread.by_jacobian:
            raise ValueError(
                f"entropy must be one of {list(BY_JACOBIAN)} with bound='bidirectional', got "
                f"{self.spread.kind!r}, which gives no density of the generator. Use "
                "bound='zero-centered-gp'."
            )
        if self.spread.kind == "variational" and self.noise() == 0:
            raise ValueError(
                "observation_noise must be > 0 with entropy='variational', got 0. Use 'auto'."
            )

    @property
    def upper(self) -> UpperBound:
        """What `bound` stands for."""
        return self.bound if isinstance(self.bound, UpperBound) else UpperBound(self.bound)

    @property
    def spread(self) -> GeneratorEntropy:
        """What `entropy` stands for."""
        known = isinstance(self.entropy, GeneratorEntropy)
        return self.entropy if known else GeneratorEntropy(self.entropy)  # type: ignore

    @property
    def maker(self) -> GeneratorComponent:
        """What `generator` stands for."""
        return MLPGenerator() if self.generator is None else self.generator

    def noise(self) -> float:
        """Return the standard deviation of the noise on generated rows, standardized units."""
        if self.maker.observation_noise == "auto":
            return VARIATIONAL_NOISE if self.spread.kind == "variational" else 0.0
        return float(self.maker.observation_noise)

    def latents(self, shape: tuple[int, ...]) -> int:
        """Return d for rows of this shape: their width, and at most 128 for images."""
        if self.maker.latent_dim is not None:
            return self.maker.latent_dim
        d = math.prod(shape)
        return d if self.image_shape is None else min(IMAGE_LATENTS, d)

    def weight(self, latent_dim: int) -> float:
        """Return w."""
        if self.penalty_weight != "auto":
            return float(self.penalty_weight)
        if self.upper.kind != "bidirectional":
            return WEIGHTS[self.upper.kind]
        divided = self.upper.probe == "sphere" and self.upper.exponent == 2  # by |v|^2 already
        return BIDIRECTIONAL_WEIGHT / (1 if divided else latent_dim)

    def build_generator(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh generator that maps latents to flat rows of this shape."""
        component = self.maker
        latent_dim = self.latents(shape)
        if latent_dim > math.prod(shape):
            raise ValueError(
                f"latent_dim must be at most the {math.prod(shape)} values of a row, got "
                f"{latent_dim}. The generator's density needs a map onto no fewer dimensions."
            )
        shape = (math.prod(shape),) if component.flat else shape
        module = component.build(latent_dim, shape, rng).to(rng.device)
        return module if len(shape) == 1 else FlatRows(module)

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the generator, what its entropy needs, and the optimizers."""
        self.check()
        shape = tuple(self.image_shape or x.shape[1:])
        module = self.build_generator(shape, rng).train()
        settings = self.optimization or Optimization()
        generator_settings = self.maker.optimization(settings)
        modules: dict[str, torch.nn.Module] = {"generator": module}
        optimizers = {
            "energy": settings.build(model.energy),
            "generator": generator_settings.build(module),
        }
        d = self.latents(shape)
        if self.spread.kind == "mutual-information":
            modules["statistics"] = FeedForward(x.shape[1] + d, STATISTICS, "silu", rng)
        if self.spread.kind == "variational":
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
        if isinstance(network, GeneratorNetwork) and self._looks_once(network):
            return state, self._step_by_look(model, state, x, self._look(network, z), rng)
        with torch.no_grad():
            fake = self._generated(network, z, rng)
        energy = model.energy(torch.cat([x, fake])) / model.temperature
        at_data, at_fake = energy[: len(x)].mean(), energy[len(x) :].mean()
        penalty = self._penalty(model, network, x, fake, z, rng)
        weighted = self.weight(d) * penalty
        hinge = (weighted - self.margin).relu() if self.upper.kind == "bidirectional" else weighted
        descend(state.optimizers["energy"], at_data - at_fake + hinge)
        row = self._improve(model, state, len(x), x, rng)
        generated = row.pop("potential")
        if self.spread.by_jacobian and not self.upper.is_wasserstein:
            mean_potential = model.potential(x).mean()
            prior = 0.5 * d * (1 + math.log(2 * math.pi))
            row["lower_bound"] = mean_potential - generated + prior + row["volume"]
        row.pop("volume")
        if self.upper.kind == "bidirectional":
            row["hinge_open"] = (weighted.detach() > self.margin).to(x.dtype)
        return state, row | {
            "data_energy": at_data.detach(),
            "generated_energy": at_fake.detach(),
            "penalty": penalty.detach(),
        }

    def judge(
        self, model: Model, state: State, rows: torch.Tensor, likelihood: Likelihood
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
        if self.upper.exponent != 2:
            return self._whole_penalty(model, network, z, rng)
        v = torch.empty_like(z).normal_(generator=rng)
        x, along, slope = self._directions(network, z, v, rng)
        known = (z * v).sum(1) + slope
        if model.base is not None:
            known = known + (model.base.log_prob_and_score(x)[1] * along).sum(1)
        return self._squared(model, x, along, known, v)

    def _looks_once(self, network: GeneratorNetwork) -> bool:
        """Whether the entropy's gradient brings all that the penalty asks of the generator."""
        exact = self.spread.kind == "logdet" and self.noise() == 0 and network.norms is None
        return exact and self.upper.kind == "bidirectional" and self.upper.exponent == 2

    def _look(self, network: GeneratorNetwork, z: torch.Tensor) -> Look:
        """Pass latents through the generator once, for both players."""
        some = self._some(z).requires_grad_(True)
        x, jacobian = network.value_and_jacobian(some)
        term = logdet_term(jacobian, self.spread.fold_penalty)
        by_z, *slopes = torch.autograd.grad(
            term.loss,
            [some, *network.parameters()],
            retain_graph=True,  # for the rows
            allow_unused=True,
            materialize_grads=True,
        )
        by_volume = torch.where(term.share == 0, 0.0, -len(some) / term.share)[:, None] * by_z
        if len(some) < len(z):
            x = torch.cat([x, network(z[len(some) :])])
        torch._foreach_mul_(slopes, self.spread.weight)
        return Look(some.detach(), x, jacobian.detach(), term, by_volume, slopes)

    def _step_by_look(
        self, model: Model, state: State, x: torch.Tensor, look: Look, rng: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Let both players move by one batch of latents: a Jacobian and a slope of p0 for both."""
        fake, (m, d) = look.x.detach(), look.z.shape
        of_base, pull = torch.zeros(()), torch.zeros_like(fake)
        if model.base is not None:
            log_prob, pull = model.base.log_prob_and_score(fake)
            of_base = log_prob.mean() - model.base.log_prob(x).mean()
        energy = model.energy(torch.cat([x, fake])) / model.temperature
        at_data, at_fake = energy[: len(x)].mean(), energy[len(x) :].mean()
        v = torch.empty_like(look.z).normal_(generator=rng)
        along = (look.jacobian @ v[:, :, None])[:, :, 0]
        known = (look.z * v).sum(1) + (look.by_z * v).sum(1) + (pull[:m] * along).sum(1)
        penalty = self._squared(model, fake[:m], along, known, v).mean()
        weighted = self.weight(d) * penalty
        descend(state.optimizers["energy"], at_data - at_fake + (weighted - self.margin).relu())
        score = energy_and_score(model.energy, fake)[1] / model.temperature + pull
        _follow(state.optimizers["generator"], -(score * look.x).sum(1).mean(), look.slopes)
        low, median = look.term.smallest.quantile(fake.new_tensor([0.05, 0.5])).unbind()
        volume = look.term.volume.mean()
        prior = 0.5 * d * (1 + math.log(2 * math.pi))
        return {
            "fold": look.term.fold,
            "s1_low": low,
            "s1_median": median,
            "lower_bound": (at_data - at_fake).detach() + of_base + prior + volume,
            "hinge_open": (weighted.detach() > self.margin).to(x.dtype),
            "data_energy": at_data.detach(),
            "generated_energy": at_fake.detach(),
            "penalty": penalty.detach(),
        }

    def _squared(
        self,
        model: Model,
        x: torch.Tensor,
        along: torch.Tensor,
        known: torch.Tensor,
        v: torch.Tensor,
    ) -> torch.Tensor:
        """Return the penalty's terms (n,), given what the energy has no part in."""
        by_energy = as_energy(model.energy).directional_derivative(x, along) / model.temperature
        terms = (by_energy - known).square()
        return terms if self.upper.probe == "gaussian" else terms / v.square().sum(1)

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
        if self.upper.is_wasserstein:
            pass
        elif self.spread.by_jacobian:
            term = self._entropy(network, z, rng)
            loss = loss + self.spread.weight * term.loss
            low, median = term.smallest.quantile(z.new_tensor([0.05, 0.5])).unbind()
            row |= {"volume": term.volume.mean(), "fold": term.fold}
            row |= {"s1_low": low, "s1_median": median}
        elif self.spread.kind == "mutual-information":
            statistics = state.modules["statistics"]
            assert isinstance(statistics, FeedForward)
            information = information_term(statistics, x, z)
            loss, players = loss + self.spread.weight * information, [*players, "statistics"]
            row["information"] = 2 * math.log(2) - information.detach()
        else:
            posterior = state.modules["posterior"]
            assert isinstance(posterior, LogWidth)
            with evaluating(network):
                entropy_loss, width_loss = posterior_term(
                    network, posterior.log_width, x, z, self.noise(), rng
                )
            descend(state.optimizers["posterior"], width_loss)
            loss = loss + self.spread.weight * entropy_loss
            row["posterior_width"] = posterior.log_width.detach().exp().mean()
        descend([state.optimizers[name] for name in players], loss)
        return row

    def _entropy(
        self, network: torch.nn.Module, z: torch.Tensor, rng: torch.Generator
    ) -> EntropyTerm:
        z = self._some(z)
        with evaluating(network):
            return jacobian_term(
                network, z, self.spread.kind, self.spread.n_lobpcg, self.spread.fold_penalty, rng
            )

    def _penalty(
        self,
        model: Model,
        network: torch.nn.Module,
        x: torch.Tensor,
        fake: torch.Tensor,
        z: torch.Tensor,
        rng: torch.Generator,
    ) -> torch.Tensor:
        if self.upper.kind == "bidirectional":
            return self.penalty_terms(model, network, self._some(z), rng).mean()
        if self.upper.kind == "wgan-gp":
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
            volume = log_volume(network, z, self.spread.kind, n_iter=self.spread.n_lobpcg, rng=rng)
            (by_z,) = torch.autograd.grad(volume.sum(), z, materialize_grads=True)
        slope = _slope(model, x.detach())
        vector = torch.einsum("nD,nDd->nd", slope, jacobian.detach()) - z.detach() - by_z
        return (vector.square().sum(1) + FLOOR**2).pow(0.5 * self.upper.exponent)

    def _directions(
        self, network: torch.nn.Module, z: torch.Tensor, v: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return G(z), J v and the derivative of the log volume along v, as constants."""
        if self.spread.kind == "logdet" and isinstance(network, GeneratorNetwork):
            x, jacobian, change = network.jacobian_and_change(z, v)
            along = torch.einsum("nDd,nd->nD", jacobian, v)
            return x, along, volume_change(jacobian, change)
        z = z.detach().requires_grad_(True)
        with evaluating(network):
            volume = log_volume(network, z, self.spread.kind, n_iter=self.spread.n_lobpcg, rng=rng)
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
        iterated = self.spread.kind == "singular-value" and z.shape[1] > MOST_EXACT
        if self.spread.kind == "hutchinson" or iterated:
            return z  # no Jacobian is formed
        return z[: max(MOST_TANGENTS // z.shape[1], FEWEST_ROWS)]

    def _latents(self, n: int, d: int, like: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return torch.empty(n, d, device=like.device).normal_(generator=rng)


class Look(NamedTuple):
    """What a batch of latents shows of a generator, before either player moves."""

    z: torch.Tensor  # (m, d) those that carry Jacobians
    x: torch.Tensor  # (n, D) generated rows, with a graph
    jacobian: torch.Tensor  # (m, D, d)
    term: EntropyTerm
    by_z: torch.Tensor  # (m, d) gradient of the log volume
    slopes: list[torch.Tensor]  # of minus the weighted entropy, in the generator's parameters


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


def _follow(
    optimizer: torch.optim.Optimizer, loss: torch.Tensor, further: list[torch.Tensor]
) -> None:
    """Take one step on a loss plus what has these gradients in the parameters."""
    (group,) = optimizer.param_groups
    pairs = zip(group["params"], further, strict=True)
    descend(optimizer, loss + sum((p * slope.detach()).sum() for p, slope in pairs))


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
    slope = -as_energy(model.energy).score(x) / model.temperature
    return slope if model.base is None else slope - model.base.log_prob_and_score(x)[1]
