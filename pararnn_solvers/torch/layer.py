"""A recurrent layer called as ``torch.nn.GRU`` is, and solved for all steps at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from pararnn_solvers import cells
from pararnn_solvers.checks import require_number, require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.torch import conversion, sequences, states
from pararnn_solvers.torch.drives import DRIVES
from pararnn_solvers.torch.exchange import as_array, part_here
from pararnn_solvers.torch.generation import LayerStepper, layer_stepper
from pararnn_solvers.torch.operator import solve_problem
from pararnn_solvers.torch.problem import Problem, Statistics

__all__ = ["ParallelRNN"]

Tensor = Any  # torch.Tensor, where PyTorch is not there to check it


class ParallelRNN(torch.nn.Module):  # type: ignore[misc]
    """A stack of recurrent layers, each solved for all steps at once by Newton's method.

    Computes what the same cell computes step after step, to the tolerance of the solves. In and out
    as ``torch.nn.GRU``; with cell ``"gru"``, ``"lstm"`` or ``"elman"`` equal to ``torch.nn.GRU``,
    ``LSTM`` or ``RNN`` of the same ``state_dict``.

    Parameters
    ----------
    cell : str
        A name out of ``pararnn_solvers.cells.CELLS``.
    input_size, hidden_size : int
        m and n, channels of each layer and direction.
    num_layers : int
    bidirectional : bool
        A layer then also reads the sequence backwards, and has 2 n outputs.
    batch_first : bool
        Whether inputs and outputs are (B, T, .) in place of (T, B, .). States are not affected.
    dropout : float
        Share of the outputs of each layer but the last that are set to 0 in training.
    method : str or method
        As of :func:`pararnn_solvers.solve`.
    on_failure : {"raise", "sequential"}
        What to do about a solve that fails: raise ConvergenceError, or compute it step by step.
        ``statistics`` counts both.
    atol, rtol : float, optional
        Tolerance of the solves; None: ``eps**0.75``.
    max_iter : int
    compiled : bool, optional
        As of :func:`pararnn_solvers.solve`; but None runs kernels whatever the size, if `cell` has
        any: training calls a layer again and again.
    nonlinearity : {"tanh", "relu"}
        Of ``"elman"`` alone.
    device, dtype
        Of the parameters: float32 or float64.
    **options
        Of the cell's ``init``, such as ``heads=4`` or ``states=16``.

    Attributes
    ----------
    statistics : Statistics
        Counts of solves, iterations, failures and fallbacks.

    Notes
    -----
    Parameters are called by the fields of the cell's ``Theta`` and by layer: ``a_l0``,
    ``B_l1_reverse``; drawn by the cell's own ``init`` with a seed from ``torch.manual_seed``.

    Cost: a solve for each layer and direction. For the backward pass inputs, drives and states are
    kept.

    Examples
    --------
    >>> import torch
    >>> layer = ParallelRNN("diagonal_gru", 3, 4, num_layers=2)
    >>> y, h_n = layer(torch.randn(10, 2, 3))
    >>> y.shape, h_n.shape
    (torch.Size([10, 2, 4]), torch.Size([2, 2, 4]))
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        method: Any = "auto",
        on_failure: str = "raise",
        atol: float | None = None,
        rtol: float | None = None,
        max_iter: int = 100,
        compiled: bool | None = None,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        require_sizes(cell, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        require_number("dropout", dropout, lambda p: 0 <= p <= 1, "a share between 0 and 1")
        self.cell, self.options = cell, options
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.batch_first, self.dropout = bidirectional, batch_first, dropout
        solver = {"method": method, "atol": atol, "rtol": rtol, "max_iter": max_iter}
        first = self._draw(input_size)
        self._fields = type(first)._fields
        self._theta = type(first)
        self._problem = Problem(
            recurrence_of(cell, first, nonlinearity),
            type(first)._make,
            on_failure,
            {**solver, "compiled": compiled},
            any_size=True,
        )
        place = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        for theta, (layer, reverse) in zip(self._drawn(), self._places(), strict=True):
            for name, value in zip(self._fields, theta, strict=True):
                parameter = torch.nn.Parameter(torch.from_numpy(value).to(**place))
                self.register_parameter(f"{name}{suffix(layer, reverse)}", parameter)
        start = torch.from_numpy(cells.load(cell).initial_state(first)).to(**place)
        self.register_buffer("_start", start, persistent=False)

    @classmethod
    def from_torch(cls, module: Any, **options: Any) -> ParallelRNN:
        """Return a layer that computes what a ``torch.nn.GRU``, ``LSTM`` or ``RNN`` does.

        Parameters
        ----------
        module : torch.nn.GRU, torch.nn.LSTM or torch.nn.RNN
            Its weights are copied.
        **options
            ``method``, ``on_failure``, ``atol``, ``rtol``, ``max_iter``, ``compiled``. In float32
            the default tolerance leaves errors of some 1e-6.

        Raises
        ------
        InvalidInput
        """
        made = cls(**conversion.arguments_of(module), **options)
        conversion.copy_weights(module, made)
        made.train(module.training)
        return made

    # ---- parameters

    def _places(self) -> list[tuple[int, int]]:
        """List layers and directions in PyTorch's order."""
        return [(k, r) for k in range(self.num_layers) for r in range(1 + self.bidirectional)]

    def _draw(self, inputs: int, seed: int = 0) -> Any:
        rng = np.random.default_rng(seed)
        return cells.load(self.cell).init(rng, inputs, self.hidden_size, **self.options)

    def _drawn(self) -> list[Any]:
        """Draw the parameters of all layers and directions, seeded by PyTorch's generator."""
        above = (1 + self.bidirectional) * self.hidden_size
        return [
            self._draw(above if layer else self.input_size, int(torch.randint(1 << 62, ()).item()))
            for layer, _ in self._places()
        ]

    def reset_parameters(self) -> None:
        """Draw all parameters anew, in place; ``torch.manual_seed`` decides."""
        with torch.no_grad():
            for theta, place in zip(self._drawn(), self._places(), strict=True):
                for parameter, value in zip(self._parameters_of(*place), theta, strict=True):
                    parameter.copy_(torch.from_numpy(value))

    def _parameters_of(self, layer: int, reverse: int) -> Any:
        """Return the parameters of one layer and direction as the cell's Theta."""
        end = suffix(layer, reverse)
        return self._theta(*[getattr(self, name + end) for name in self._fields])

    def theta(self, layer: int = 0, reverse: bool = False) -> Any:
        """Return the parameters of one layer and direction as arrays, which share their memory.

        What :mod:`pararnn_solvers.cells` and :func:`pararnn_solvers.stepper` take.
        """
        return self._theta(*map(as_array, self._parameters_of(layer, int(reverse))))

    def clip_recurrent(self, bound: float) -> None:
        """Bound the recurrent weights, in place, as the authors of ParaRNN train with.

        Call it after each step of the optimizer. Of weights in parts each process clips its own.

        Raises
        ------
        InvalidInput
            The cell has no diagonal recurrent weights.
        """
        clip = getattr(cells.load(self.cell), "clip_recurrent", None)
        if clip is None:
            raise InvalidInput(
                f"cell is {self.cell!r}, which has no recurrent weights to clip; expected one of "
                "diagonal_gru, diagonal_lstm, slstm"
            )
        with torch.no_grad():
            for layer, reverse in self._places():
                here = map(part_here, self._parameters_of(layer, reverse))
                now = self._theta(*map(as_array, here))  # arrays in the parameters' memory
                for weights, clipped in zip(now, clip(now, bound), strict=True):
                    weights[...] = clipped

    def stepper(self, streams: int = 1, h_0: Any = None) -> LayerStepper:
        """Return what takes one step of so many streams in each call, for generation.

        Memory is constant, however many steps there are; weights are copied, so make another one
        after further training. Dropout is left out.

        Parameters
        ----------
        streams : int
            B, the sequences that advance together.
        h_0 : optional
            As of :meth:`forward`; for example what that returned for a prompt.

        Returns
        -------
        LayerStepper
            Call it with inputs (B, m) for outputs (B, n).

        Examples
        --------
        >>> import torch
        >>> advance = ParallelRNN("diagonal_gru", 3, 4, num_layers=2).stepper(streams=5)
        >>> advance(torch.zeros(5, 3)).shape
        torch.Size([5, 4])
        """
        require_whole("streams", streams)
        return layer_stepper(self, streams, h_0)

    @property
    def recurrence(self) -> Any:
        """The recurrence of all layers."""
        return self._problem.recurrence

    @property
    def statistics(self) -> Statistics:
        """Counts of solves, iterations, failures and fallbacks so far."""
        return self._problem.statistics

    # ---- the layer

    def forward(self, x: Any, h_0: Any = None, lengths: Any = None) -> tuple[Any, Any]:
        """Return the outputs of the last layer, and the final states of all.

        Parameters
        ----------
        x : tensor, shape (T, B, m), (B, T, m) with batch_first, or (T, m); or a PackedSequence
        h_0 : tensor, shape (layers * directions, B, d) or, for x (T, m), without B, optional
            For ``lstm`` and ``diagonal_lstm`` a tuple (h_0, c_0) of (..., n). None starts from an
            empty memory.
        lengths : integers, shape (B), optional
            Steps of each sequence of a padded batch. Outputs are 0 in the padding.

        Returns
        -------
        y : tensor, shape (T, B, directions * n), laid out as x
        h_n : of the shape of h_0
            States after each sequence's last step; of the reverse direction, after its first.

        Raises
        ------
        InvalidInput, ConvergenceError, BackendUnavailable
        """
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise InvalidInput("lengths are given with a PackedSequence, which has its own")
            states.require_input(x.data, self.input_size, self._start.dtype, False)
            whole, lengths = sequences.padded(x)
            y, final = self._stack(whole, self.starting_states(h_0, whole.shape[1]), lengths)
            return sequences.packed(y, lengths, x), states.returned(self.cell, final)
        states.require_input(x, self.input_size, self._start.dtype, self.batch_first)
        single = x.dim() == 2
        swap = self.batch_first and not single
        x = x.unsqueeze(1) if single else x.transpose(0, 1) if swap else x
        if lengths is not None:
            lengths = torch.as_tensor(lengths, device=x.device)
            lengths = lengths.reshape(1) if single else lengths
        y, final = self._stack(x, self.starting_states(h_0, x.shape[1], single), lengths)
        y = y.squeeze(1) if single else y.transpose(0, 1) if swap else y
        return y, states.returned(self.cell, final.squeeze(1) if single else final)

    def _stack(self, x: Tensor, starts: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return outputs (T, B, .) of the last layer, and final states (places, B, d)."""
        finals: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = torch.nn.functional.dropout(x, self.dropout, self.training)
            outputs = []
            for reverse in range(1 + self.bidirectional):
                seen = sequences.reversed_in_time(x, lengths) if reverse else x
                y, final = self._solve(seen, starts[len(finals)], lengths, (layer, reverse))
                outputs.append(sequences.reversed_in_time(y, lengths) if reverse else y)
                finals.append(final)
            x = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
            x = sequences.blank_padding(x, lengths)
        return x, torch.stack(finals)

    def _solve(
        self, x: Tensor, h0: Tensor, lengths: Tensor | None, place: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs and the final states of one layer and direction."""
        theta, drives = self._parameters_of(*place), DRIVES[self.cell]
        u = drives.project(x, theta).to(self._start.dtype)  # autocast makes it half
        within = [
            leaf.detach() if name in drives.fields else leaf
            for name, leaf in zip(self._fields, theta, strict=True)
        ]
        h = solve_problem(self._problem, u, h0, within, lengths=lengths)
        return drives.output(h, x, theta), h[-1] if len(h) else h0

    def starting_states(self, h_0: Any, batch: int, single: bool = False) -> Tensor:
        """Return initial states (places, B, d) from those given, or of empty memories."""
        if h_0 is not None:
            shape = (len(self._places()), batch, len(self._start))
            return states.received(self.cell, h_0, shape, self._start.dtype, single)
        return self._start.expand(len(self._places()), batch, -1).contiguous()

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        parts = [repr(self.cell), str(self.input_size), str(self.hidden_size)]
        for name, default in (
            ("num_layers", 1),
            ("bidirectional", False),
            ("batch_first", False),
            ("dropout", 0.0),
        ):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        parts += [f"{name}={value!r}" for name, value in self.options.items()]
        return ", ".join(parts)


def recurrence_of(cell: str, theta: Any, nonlinearity: str) -> Any:
    """Return the recurrence of a cell, of which ``"elman"`` has two."""
    if nonlinearity not in ("tanh", "relu"):
        raise InvalidInput(f"nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'")
    if nonlinearity == "relu":
        if cell != "elman":
            raise InvalidInput(f"nonlinearity is of cell 'elman' only, and cell is {cell!r}")
        return cells.load(cell).rectified
    return cells.recurrence_of(cell, theta)


def require_sizes(cell: Any, **sizes: Any) -> None:
    """Raise InvalidInput unless the cell is known and the sizes are whole numbers."""
    if cell not in DRIVES:
        raise InvalidInput(f"cell is {cell!r}; expected one of {', '.join(DRIVES)}")
    for name, value in sizes.items():
        require_whole(name, value)


def suffix(layer: int, reverse: int) -> str:
    """Return what PyTorch adds to the names of parameters."""
    return f"_l{layer}" + "_reverse" * reverse
