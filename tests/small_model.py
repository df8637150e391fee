"""A network small enough for tests, as `build_model` and `checkpoints.save_model` take it."""

SETTINGS = {"width": 4, "depth": 2, "dropout": 0.0, "initialisation": "default"}
DESCRIPTION = {"model": "unet", "settings": SETTINGS, "image_size": 48, "border_policy": "pet"}
DESCRIPTION |= {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
