"""One photograph in a new process, from the start of Python to the probabilities: `WAY MODEL FOLDER NAME DEVICE`."""

import json
import sys


def main(way: str, path: str, folder: str, name: str, device: str) -> None:
    probability = {"ours": ours, "eager": eager}[way](path, folder, name, device)
    print(json.dumps({"share": float((probability > 0.5).mean())}))


def ours(path: str, folder: str, name: str, device: str):
    """As a notebook would."""
    from pathlib import Path

    from petseg_lib.checkpoints import load_model
    from petseg_lib.data.pets import open_dataset
    from petseg_lib.devices import open_fabric
    from petseg_lib.evaluation import predict

    dataset = open_dataset(folder)
    (pet,) = (pet for pet in dataset.pets if pet.name == name)
    model, description = load_model(Path(path))
    return predict(model, dataset, [pet], description, open_fabric(device))[0].probability


def eager(path: str, folder: str, name: str, device: str):
    """With torch and Pillow alone, in float32."""
    return eager_prediction(load_eager(path, device), f"{folder}/images/{name}.jpg", device)


def load_eager(path: str, device: str):
    """The network and what its input needs."""
    import safetensors
    from safetensors.torch import load_file

    from benchmarks.plain_networks import with_pytorchs_convolutions
    from petseg_lib.models import build_model

    with safetensors.safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["petseg"])
    model = with_pytorchs_convolutions(build_model(description["model"], **description["settings"]))
    model.load_state_dict(load_file(path))
    return model.to(device).eval(), description


def eager_prediction(loaded: tuple, photograph, device: str):
    """(H, W) probabilities at the photograph's own size."""
    import numpy as np
    import torch
    from PIL import Image

    model, description = loaded
    side = description["image_size"]
    image = Image.open(photograph).convert("RGB")
    pixels = np.array(image.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    pixels = (pixels - np.array(description["mean"], np.float32)) / np.array(description["std"], np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].to(device))
        logits = torch.nn.functional.interpolate(logits, size=image.size[::-1], mode="bilinear", align_corners=False)
    return logits[0, 0].sigmoid().cpu().numpy()


if __name__ == "__main__":
    main(*sys.argv[1:])
