"""Saving and loading of models: atomically, and without pickle (nothing that is loaded can run code); what a training goes on from."""

import io
import json
import pickle  # for the name of its error alone
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from petseg_lib.config import ReadableError, TrainingParameters, shown
from petseg_lib.data.masks import BORDER_POLICIES
from petseg_lib.disk import from_here, write_atomically
from petseg_lib.models import build_model
from petseg_lib.runs import Run, RunError

WRITING_SHARE = 0.01  # of a training's time, while which checkpoints may be under way to the disk
EXPECTED_BYTES_A_SECOND = 2.5e8  # of the first checkpoint, before any was timed
LONGEST_SECONDS = 600  # between two checkpoints, wherever an epoch is shorter


def describe_model(parameters: TrainingParameters, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """All that is needed to use weights again: the network's settings and how its input is made."""
    settings = parameters.model_settings()
    settings.pop("encoder_weights", None)  # trained weights replace them
    return {
        "model": parameters.model,
        "settings": settings,
        "image_size": parameters.image_size,
        "border_policy": parameters.border_policy,
        "mean": list(mean),
        "std": list(std),
    }


def save_model(path: Path, weights: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write a model's weights (its `state_dict()`) and its description (`describe_model`) as one safetensors file."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomically(path, safetensors.torch.save(weights, metadata={"petseg": json.dumps(description)}))


def load_run(run_dir: str) -> tuple[Run, nn.Module, dict[str, Any]]:
    """A run as a command names it, its network, and that one's description; it is said where the run is not finished.

    Raises:
        RunError: the run has no usable model.
    """
    run = Run(from_here(run_dir))
    model, description = load_model(run.folder / "model.safetensors")
    if not run.complete:
        print(f"petseg: {shown(run.folder)} is not finished: its weights so far are used", file=sys.stderr)
    return run, model, description


def load_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model that `save_model` wrote, in evaluation mode on the CPU.

    Raises:
        RunError: there is no such file, or it is not one of `save_model`, or its weights do not fit its description.
    """
    if not path.is_file():
        raise RunError(f"{shown(path)} does not exist: the run is missing or did not finish")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        weights = safetensors.torch.load(path.read_bytes())  # not mapped: Windows replaces no file that is
    except safetensors.SafetensorError as error:
        raise RunError(f"{shown(path)} is no safetensors file, or is cut off ({error}): train the run again (--force)") from None
    if "petseg" not in metadata:
        raise RunError(f"{shown(path)} holds weights without a description of their model: petseg did not write it")
    try:
        description = json.loads(metadata["petseg"])
        _check_description(description)
        with torch.device("meta"):  # no memory is taken before the sizes are known to be those of the file
            model = build_model(description["model"], **description["settings"])
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"the description of the model in {shown(path)} makes no sense: {reason}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    unlike = [name for name in expected | found if expected.get(name) != found.get(name)]
    if unlike:
        first = f"{unlike[0]} is {found.get(unlike[0], 'missing')}, but must be {expected.get(unlike[0], 'absent')}"
        raise RunError(f"{len(unlike)} weights in {shown(path)} do not fit {description['model']}: {first}")
    model.load_state_dict(weights, assign=True)
    return model.eval(), description


def _check_description(description: Any) -> None:
    """What is used without further checks: a damaged or foreign file must not fail somewhere far from here."""
    keys = {"model", "settings", "image_size", "border_policy", "mean", "std"}
    if not isinstance(description, dict) or not keys <= description.keys():
        raise ValueError(f"it must have {', '.join(sorted(keys))}")
    if description["border_policy"] not in BORDER_POLICIES:
        raise ValueError(f"border_policy is {description['border_policy']!r}")
    if not isinstance(description["image_size"], int) or not 32 <= description["image_size"] <= 4096:
        raise ValueError(f"image_size is {description['image_size']!r}, but must be 32 to 4096")
    for name in ("mean", "std"):
        values = description[name]
        if not (isinstance(values, list) and len(values) == 3 and all(isinstance(value, float) for value in values)):
            raise ValueError(f"{name} is {values!r}, but must be three numbers")


def copied(state: Any, into: Any = None) -> Any:
    """Dictionaries and lists of tensors, copied to the CPU's memory, where training on changes nothing in them.

    Args:
        into: an earlier copy of the same kind, whose memory is used again where it fits: new memory costs more than copying.
    """
    if isinstance(state, Tensor):
        fits = isinstance(into, Tensor) and into.shape == state.shape and into.dtype == state.dtype
        return into.copy_(state.detach()) if fits else state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        earlier = into if isinstance(into, dict) else {}
        return {name: copied(value, earlier.get(name)) for name, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list) else state


class Checkpointer:
    """Keeps what each epoch of a training leaves, and writes it in a thread while the next one trains.

    It writes as often as takes 1% of the time, and at least every ten minutes: after each epoch where that is quick; the
    first time, when as much time has passed as makes 1% of what it should take. As a context manager it writes what is left
    before it ends, after an error or an interrupt too, so that a run goes on from its last finished epoch; one whose process
    was killed goes on from its last checkpoint, and comes to the same.

    What went wrong in the thread is raised by the next `keep`, or at the end.

    Args:
        description: `describe_model`, saved with the weights that are kept.
    """

    def __init__(self, run: Run, description: dict[str, Any]) -> None:
        self._run, self._description = run, description
        self._pool, self._under_way = ThreadPoolExecutor(1), None
        self._state: dict[str, Any] = {}
        self._weights: dict[str, Any] = {}
        self._weights_are_new = self._left = False
        self._began, self._due = time.monotonic(), None

    def keep(self, state: dict[str, Any], weights: dict[str, Tensor] | None) -> None:
        """Copy what an epoch leaves, and write it if that is due.

        Args:
            state: what an interrupted run needs to go on; under `progress` its `history`, which is written at each epoch.
            weights: those to use from now on, where the epoch's are kept.
        """
        self._wait()
        if self._due is None:
            self._due = self._began + min(_bytes(state) / EXPECTED_BYTES_A_SECOND / WRITING_SHARE, LONGEST_SECONDS)
        # An interrupt meanwhile would leave a mixture of two epochs in the copies: the run then goes on from its last file.
        are_new, self._weights_are_new, self._left = self._weights_are_new, False, False
        self._state = copied(state, self._state)
        if weights is not None:
            # Contiguous, as save_model needs them: an operation in its thread would start threads of OpenMP beside the
            # training's, and these then wait asleep for each other.
            self._weights = self._weights or {
                name: torch.empty_like(each, device="cpu", memory_format=torch.contiguous_format)
                for name, each in weights.items()
            }
            self._weights, are_new = copied(weights, self._weights), True
        self._weights_are_new, self._left = are_new, True
        self._under_way = self._pool.submit(self._write, time.monotonic() >= self._due)

    def _write(self, due: bool) -> None:
        """The model first, and then the state: a run that ends in between goes on from the state before, and comes to
        the same."""
        if due:
            self._left, began = False, time.monotonic()
            if self._weights_are_new:
                save_model(self._run.folder / "model.safetensors", self._weights, self._description)
                self._weights_are_new = False
            save_state(state_path(self._run), self._state)
            now = time.monotonic()
            self._due = now + min((now - began) / WRITING_SHARE, LONGEST_SECONDS)
        self._run.write_table("history.csv", pd.DataFrame(self._state["progress"]["history"]))

    def _wait(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *error: object) -> None:
        with self._pool:
            self._wait()
            if self._left:
                self._under_way = self._pool.submit(self._write, due=True)
                self._wait()


def state_path(run: Run) -> Path:
    """What an interrupted training goes on from."""
    return run.folder / "resume" / "state.pt"


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C, or a notebook's button: in a notebook one sentence, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@contextmanager
def interruptible(run: Run, *parts: Any) -> Iterator[None]:
    """A training that is stopped before its first checkpoint leaves these parts, such as the model, as they came, so that a
    notebook's kernel begins anew with them."""
    begun = [] if state_path(run).is_file() else [copied(part.state_dict()) for part in parts]
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | ReadableError):
            _empty_frames(error)
        goes_on = state_path(run).is_file()
        if not goes_on:
            for part, state in zip(parts, begun, strict=True):
                part.load_state_dict(state)
        if isinstance(error, KeyboardInterrupt):
            how = "goes on from its last checkpoint" if goes_on else "begins anew: there is no checkpoint yet"
            raise TrainingInterrupted(f"Interrupted: run this again, and it {how}.") from None
        raise


def _empty_frames(error: BaseException | None) -> None:
    """Let go of what an error's functions held, such as the activations of a step: a notebook keeps its last error, and the
    next attempt needs their memory. For errors that are a sentence, whose frames nobody looks into."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)  # passes over functions that still run
        error = error.__context__


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what an interrupted run needs to go on: tensors, numbers and strings alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(torch.save, state), _bytes(state))


def _bytes(state: Any) -> int:
    """How much the tensors of a state hold."""
    if isinstance(state, Tensor):
        return state.nbytes
    return sum(map(_bytes, state.values())) if isinstance(state, dict) else 0


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; with `weights_only`, which refuses everything that could run code.

    Raises:
        RunError: the file is damaged.
    """
    try:
        # By its bytes: of a file that is cut off, PyTorch seeks to places before its beginning, which the system refuses.
        return torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(
            f"{shown(path)} cannot be trusted or is damaged ({reason}): remove {shown(path.parent)} to start that run anew"
        ) from None
