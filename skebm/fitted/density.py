"""A fitted density: what a fit leaves, and what everything above it reads."""

from __future__ import annotations

__all__ = ["FittedDensity"]

import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from skebm._surroundings import own_settings, threads
from skebm._warn import warn
from skebm.bases import Base
from skebm.bases.tails import Defended
from skebm.data import Transform, resolve_device, torch_generator
from skebm.energies import Energy, Model, Zero, as_energy
from skebm.fitted.draws import Draws, SampleInfo
from skebm.fitted.energy import EnergySource, pack_energy, unpack_energy
from skebm.fitted.holes import Holes
from skebm.fitted.pack import Packable, Tensors, pack_all, prefixed, unpack_all, within
from skebm.partition import LogPartition

FEW = 256  # rows up to which everything is computed in double precision
NARROW = 30.0  # inverse width from which a base is, whatever the number of rows
FAR = 1e3  # coordinates from which a row is
BLOCK = {"cpu": 4096}  # rows at a time, above that
DEVICE_BLOCK = 65536
FOUND = ("_is_narrow", "_wants_double", "_per_row", "holes")  # when first asked for
N_PER_POINT = 8  # completions of a row at each of them
N_IN_CELL = 8  # points of a lattice's cell that a density is the mean over
LARGEST = 1e300  # nats; stands for what float arithmetic calls infinite


class FittedDensity:
    r"""A density of rows in the units of X, :math:`\log p(x) = -U(z) - \log Z + \log |dz/dx|`.

    Parameters
    ----------
    model : Model
        Energy, base and temperature, on standardized space; a copy without gradients is kept.
    transform : Transform
        From the units of X to standardized space.
    proposal : Base
        Normalized density near the model, from which log Z and samples are reached.
    log_partition : LogPartition or None
        log Z in nats; None where it is not known, and log densities lack a constant.
    draws : Draws, optional
        How the density is drawn from.
    source : EnergySource
        What built the energy, for files.
    device : torch.device
        Where it is computed.

    Notes
    -----
    The same call gives the same bits on one machine. Up to 256 rows are computed in double
    precision, so that a row's value in two such calls agrees to 1e-9 (1 + \|value\|); more rows in
    float32, but for rows far out and bases that are narrow or of kernels, and in blocks, and any
    two calls agree to 1e-5 (1 + \|value\|). Memory beyond the result is that of one block.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import HybridCDDensity
    >>> X = np.random.RandomState(0).randn(200, 2)
    >>> density = HybridCDDensity(max_iter=25, random_state=0).fit(X).density_
    >>> density.log_density(X[:3]).shape, density.sample(4, random_state=0).shape
    ((3,), (4, 2))
    """

    def __init__(
        self,
        model: Model,
        transform: Transform,
        proposal: Base,
        log_partition: LogPartition | None,
        draws: Draws | None,
        *,
        source: EnergySource,
        device: torch.device,
    ) -> None:
        energy = copy.deepcopy(model.energy).requires_grad_(False).eval()
        self.model = model._replace(energy=energy)
        self.transform, self.proposal = transform, proposal
        self.draws: Any = draws or Draws()
        self.log_partition, self.source, self.device = log_partition, source, device
        self._double: Model | None = None

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return self.proposal.n_features

    @own_settings()
    def log_density(self, X: np.ndarray) -> np.ndarray:
        """Return log p at rows (n, d) in the units of X: (n,), nats, finite."""
        log_z = 0.0 if self.log_partition is None else self.log_partition.value
        holed = missing(X)
        if holed is not None:
            out = np.empty(len(X))
            out[holed] = self._observed(X[holed], 0)
            out[~holed] = self.log_density(X[~holed])
            return finite(out)
        if self.transform.steps is not None and self.transform.steps.any():
            out = self._over_cells(X)
        else:
            out = self._evaluate(X, Model.potential, sloped=True)
        out -= log_z  # in place: there may be 1e8
        return finite(out)

    def log_proba(self, X: np.ndarray, column: int, n_levels: int) -> np.ndarray:
        """Return the log probabilities (n, n_levels) of a column's codes given the rest of rows."""
        tried, each = X.copy(), []
        for code in range(n_levels):
            tried[:, column] = code
            each.append(self.log_density(tried))
        joint = np.stack(each, axis=1)
        return joint - np.logaddexp.reduce(joint, axis=1)[:, None]

    def _observed(self, X: np.ndarray, field: int) -> np.ndarray:
        """Return a field of `Observed` of rows with holes, log means over the cells of lattices."""
        steps, completed = self.transform.steps, field == 2
        if steps is None or not steps.any():
            return self.holes.observed(X, completed=completed)[field]
        offsets = cell_offsets(steps, X.shape[1])
        values = [
            self.holes.observed(X + o, completed=completed, n_draws=N_PER_POINT)[field]
            for o in offsets
        ]
        return np.logaddexp.reduce(values, axis=0) - math.log(N_IN_CELL)

    def _over_cells(self, X: np.ndarray) -> np.ndarray:
        """Return unnormalized log densities of rows (n, d), means over the cells of lattices."""
        total = np.full(len(X), -np.inf)
        for offset in cell_offsets(self.transform.steps, X.shape[1]):
            part = self._evaluate(X + offset, Model.potential, sloped=True)
            np.logaddexp(total, part, out=total)
        return total - math.log(N_IN_CELL)

    @own_settings()
    def log_density_of_completions(self, X: np.ndarray) -> np.ndarray:
        """Return log p at rows (n, d), on average over what may be missing: (n,), nats."""
        holed = missing(X)
        if holed is None:
            return self.log_density(X)
        out = np.empty(len(X))
        out[holed] = self._observed(X[holed], 2)
        out[~holed] = self.log_density(X[~holed])
        return finite(out)

    @own_settings()
    def energy(self, X: np.ndarray) -> np.ndarray:
        """Return E alone at rows (n, d) in the units of X: (n,), nats."""
        return finite(self._evaluate(X, lambda model, z: model.energy(z)))

    @own_settings()
    def score_function(self, X: np.ndarray) -> np.ndarray:
        """Return the gradient of log p at rows (n, d): (n, d), nats per unit of X."""
        out = self._evaluate(X, lambda model, z: model.potential_and_score(z)[1], X.shape[1:])
        root = np.exp(self.transform.log_slope(X) / 2)  # which doubles hold for denormal scales too
        with np.errstate(over="ignore"):  # made finite below
            out *= root
            out *= root
            out += self.transform.slope_gradient(X)
        return finite(out)

    def sample(
        self, n_samples: int, random_state: int | np.random.RandomState | None = None
    ) -> np.ndarray:
        """Return rows (n_samples, d) of the density in the units of X."""
        return self.draw(n_samples, torch_generator(random_state, self.device))[0]

    def draw(self, n: int, rng: torch.Generator) -> tuple[np.ndarray, SampleInfo]:
        """Return rows (n, d) in the units of X, and how their drawing went."""
        z, info = self.draw_standardized(n, rng)
        return self.transform.inverse(z), info

    def draw_standardized(self, n: int, rng: torch.Generator) -> tuple[torch.Tensor, SampleInfo]:
        """Return rows (n, d) of standardized space, and how their drawing went."""
        model, proposal = self.model, self.proposal
        if self._is_narrow and self.draws.by_weights and self.device.type != "mps":
            # float32 rows would be few places side by side
            model = self._narrow()
            if proposal is self.model.base:
                proposal = model.base or proposal
            else:
                proposal = copy.deepcopy(proposal).double()
        with own_settings(), threads(self.model.multiply_adds(n)):
            return self.draws.sample(model, proposal, n, rng)

    def noise(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return n starts of noise (n, d) for chains, standardized space."""
        return self.draws.start.draw(self.model, (self.n_features,), n, rng)

    def standardized(self, X: np.ndarray) -> torch.Tensor:
        """Return rows (n, d) in the units of X as float32 rows of standardized space."""
        return self.transform.forward(X, self.device)

    @cached_property
    def holes(self) -> Holes:
        """What reads rows with missing values."""
        return Holes(self)

    def doubled(self) -> tuple[Model, torch.device]:
        """Return the model in double precision, and where it is."""
        on_mps = self.device.type == "mps"
        return self._doubled(), torch.device("cpu") if on_mps else self.device

    def without_tails(self) -> FittedDensity:
        """Return the density with its base's heavy tails cut off: what rows are far from.

        Gradients and ratios of densities fade out in tails, so that far rows would look normal to
        them. log Z is kept, which then is too large by the tails' share.
        """
        base = self.model.base
        if not isinstance(base, Defended):
            return self
        twin = copy.copy(self)
        vars(twin).update(model=self.model._replace(base=base.core), _double=None)
        return twin

    def pack(self) -> tuple[dict[str, Any], Tensors]:
        """Return a plain header and the tensors, for files."""
        log_z = self.log_partition
        parts = {
            "transform": self.transform,
            "base": self.model.base,
            "proposal": None if self.proposal is self.model.base else self.proposal,
            "draws": self.draws,
            "temperature": self.model.temperature,
            "log_partition": log_z and (*log_z, log_z.pareto_k),
        }
        energy, tensors = pack_energy(self.model.energy, self.source)
        headers, others = pack_all(parts)
        return {"energy": energy, "parts": headers}, prefixed(tensors, "energy") | others

    @classmethod
    def unpack(
        cls,
        header: dict[str, Any],
        tensors: Tensors,
        device: torch.device,
        factory: Callable | None = None,
    ) -> FittedDensity:
        """Invert `pack`; `factory` is the user's function, where one built the energy."""
        inner = within(tensors, "energy")
        energy, source = unpack_energy(header["energy"], inner, torch.device("cpu"), factory)
        parts = unpack_all(header["parts"], tensors)
        log_z, base = parts["log_partition"], parts["base"]
        return cls(
            Model(energy, base, parts["temperature"]),
            parts["transform"],
            parts["proposal"] or base,
            log_z and LogPartition(*log_z),
            parts["draws"],
            source=source,
            device=torch.device("cpu"),
        ).to(device)

    def to(self, device: torch.device) -> FittedDensity:
        """Move all tensors to a device."""
        model, shared = self.model, self.proposal is self.model.base
        base = None if model.base is None else copy.deepcopy(model.base).to(device)
        self.model = model._replace(energy=copy.deepcopy(model.energy).to(device), base=base)
        self.proposal = base if shared and base else copy.deepcopy(self.proposal).to(device)
        self.draws, self.device, self._double = _moved(self.draws, device), device, None
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in vars(self).items() if k not in FOUND} | {"_double": None}
        if self.device.type == "cpu":
            return state
        twin = object.__new__(type(self))
        vars(twin).update(state)
        return vars(twin.to(torch.device("cpu"))) | {"device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.device.type != "cpu":
            self.to(device_here(self.device))

    def _evaluate(
        self,
        X: np.ndarray,
        function: Callable[[Model, torch.Tensor], torch.Tensor],
        row_shape: tuple[int, ...] = (),
        *,
        sloped: bool = False,
    ) -> np.ndarray:
        """Apply a function of model and standardized rows block by block: (n, *row_shape).

        With `sloped` it is subtracted from the log volume that the transform takes.
        """
        out, exactly = np.empty((len(X), *row_shape)), len(X) <= FEW
        size = BLOCK.get(self.device.type, DEVICE_BLOCK)
        work = len(X) * self._per_row if len(X) <= size else np.inf
        with torch.no_grad(), threads(work):
            for start in range(0, len(X), size):
                block = slice(start, start + size)
                if not sloped:
                    z = self.transform.forward(X[block], dtype=torch.float64)
                    out[block] = self._apply(function, z, exactly)
                    continue
                z, log_slope = self.transform.forward_and_log_slope(X[block])
                np.subtract(log_slope, self._apply(function, z, exactly), out=out[block])
        return out

    def _apply(
        self,
        function: Callable[[Model, torch.Tensor], torch.Tensor],
        z: torch.Tensor,
        exactly: bool,
    ) -> np.ndarray:
        """Apply a function to a block of rows in double precision.

        Unless it is to be exact or rows are far out, it is computed in float32, with a base that is
        narrow, or made of kernels, in double.
        """
        on_mps = self.device.type == "mps"
        low, high = z.aminmax()
        if exactly or max(-low, high) > FAR:
            model, z = self._doubled(), z.to("cpu" if on_mps else self.device)
        elif self._wants_double and not on_mps:
            model, z = self._narrow(), z.to(self.device)
        else:
            model, z = self.model, z.float().to(self.device)
        return function(model, z).cpu().numpy()

    @cached_property
    def _is_narrow(self) -> bool:
        """Whether float32 is too coarse for the places of rows."""
        base = self.model.base
        return base is not None and base.inverse_width > NARROW

    @cached_property
    def _wants_double(self) -> bool:
        """Whether the base is given rows in double: it is narrow, or gains nothing by less."""
        base = self.model.base
        return base is not None and (self._is_narrow or base.in_double)

    @cached_property
    def _per_row(self) -> float:
        """Multiply-adds that a row takes."""
        return self.model.multiply_adds(1)

    def _narrow(self) -> Model:
        """Return the model with its base alone in double precision."""
        energy = self.model.energy
        known = isinstance(energy, Zero)  # models that are their base are drawn from as such
        return self._doubled()._replace(energy=energy if known else InSingle(energy))

    def _doubled(self) -> Model:
        if self._double is None:
            device = "cpu" if self.device.type == "mps" else self.device
            energy, base, temperature = copy.deepcopy(self.model)
            base = None if base is None else base.to(device).double()
            self._double = Model(energy.to(device).double(), base, temperature)
        return self._double


class InSingle(Energy):
    """An energy in float32, whatever the precision of the rows (n, d)."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = as_energy(module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        return self.module(x.float())

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        return self.module.value_and_gradient(x.float())


def _moved(value: Any, device: torch.device) -> Any:
    """Return a part with its tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Packable):
        return type(value)(**{k: _moved(v, device) for k, v in value.parts().items()})
    return value


def missing(X: np.ndarray) -> np.ndarray | None:
    """Return which rows (n, d) have missing values, None where none has."""
    block = max(1, 2**20 // X.shape[1])
    if not any(np.isnan(X[start : start + block].min()) for start in range(0, len(X), block)):
        return None  # one pass over the table
    rows = np.isnan(X).any(1)
    return rows if rows.any() else None


def cell_offsets(steps: np.ndarray | None, d: int) -> np.ndarray:
    """Return points (8, d) spread over a cell around 0, as a Latin square; 0 in other columns."""
    assert steps is not None  # asked for lattices alone
    random, out = np.random.RandomState(0), np.zeros((N_IN_CELL, d))
    for j, step in enumerate(steps):
        out[:, j] = step * ((random.permutation(N_IN_CELL) + 0.5) / N_IN_CELL - 0.5)
    return out


def finite(values: np.ndarray) -> np.ndarray:
    """Replace what overflowed, in place: -inf and nan become -1e300, +inf becomes 1e300."""
    values[np.isnan(values)] = -LARGEST
    return values.clip(-LARGEST, LARGEST, out=values)


def device_here(device: Any) -> torch.device:
    """Return the device, or the CPU with a warning where this machine lacks it."""
    try:
        return resolve_device(device)
    except ValueError:
        warn(
            f"The estimator was fitted on {device}, which this machine lacks; it runs on the CPU.",
            UserWarning,
        )
        return torch.device("cpu")
