"""Saving and loading of models: atomically, and without pickle (nothing that is loaded can run code)."""

import io
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from petseg_lib.config import TrainingParameters, shown
from petseg_lib.models import build_model
from petseg_lib.runs import RunError, write_atomically


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


def save_model(path: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Write a model's weights and its description (`describe_model`) as one safetensors file."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, safetensors.torch.save(weights, metadata={"petseg": json.dumps(description)}))


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
        weights = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise RunError(f"{shown(path)} is no safetensors file: {error}") from None
    if "petseg" not in metadata:
        raise RunError(f"{shown(path)} holds weights without a description of their model: petseg did not write it")
    description = json.loads(metadata["petseg"])
    model = build_model(description["model"], **description["settings"])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"the weights in {shown(path)} do not fit {description['model']}: {error}") from None
    return model.eval(), description


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what an interrupted run needs to go on: tensors, numbers and strings alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; with `weights_only`, which refuses everything that could run code."""
    return torch.load(path, map_location="cpu", weights_only=True)
