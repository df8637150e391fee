"""Evaluating the test split: every convention and border policy, at the network's size and at the photographs' own."""

import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn

from benchmarks.epochs import OurEpochs
from benchmarks.plain_networks import with_pytorchs_convolutions
from benchmarks.report_way import report_inference, report_loader
from benchmarks.rows import Row, build_row, in_rounds, speed_over, target
from benchmarks.setting import REPORT_NETWORKS, TITLES, Setting
from benchmarks.timing import alternate, as_usual, quotient, spread, timed
from petseg_lib import training
from petseg_lib.checkpoints import load_model
from petseg_lib.data.cache import open_cache
from petseg_lib.devices import open_fabric
from petseg_lib.evaluation import dice_table, evaluate
from petseg_lib.inference import for_inference, map_passes

REPORT, FORWARD = "the report's inference", "the forward passes alone"
CACHE = "making the cache, which is not counted"


def evaluation(network: str) -> Callable[[Setting], list[Row]]:
    """The row of one of the report's own networks, at full width."""
    return lambda setting: [_row(setting, network)]


def _row(setting: Setting, network: str) -> Row:
    parameters = setting.parameters(network, learning_rate=1e-3, epochs=setting.sizes.epochs[network])
    size, batch_size = parameters.image_size, parameters.batch_size
    model, description = _trained(setting, network, parameters)
    dataset = setting.dataset(setting.sizes.evaluated)
    pets = dataset.split("test")
    cache = open_cache(dataset, pets, size, setting.caches)
    plain = with_pytorchs_convolutions(copy.deepcopy(model))
    report_model = nn.Sequential(copy.deepcopy(plain), nn.Sigmoid()).to(setting.device)
    loader = report_loader(dataset, pets, size, train=False, batch_size=batch_size)
    fabric = training.start(parameters)

    def measured(model: nn.Module, fabric: Fabric) -> pd.DataFrame:
        return dice_table(evaluate(model, dataset, pets, cache, description, fabric, batch_size), batch_size)

    measures = {
        "ours": timed(lambda: measured(model, fabric), setting.device),
        REPORT: as_usual(timed(lambda: report_inference(report_model, loader, setting.device), setting.device)),
        FORWARD: timed(_forward_passes(model, cache, description, fabric, batch_size), setting.device),
        CACHE: timed(lambda: open_cache(dataset, pets, size, setting.new_folder("cache_alone"))),
    }
    taken = alternate(f"evaluation of {TITLES[network]}", measures, setting.sizes.slow_rounds)
    exact = open_fabric(setting.device, "32-true")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # float32 in a GPU's convolutions too
        in_float32 = measured(plain, exact)["value"].to_numpy()
    difference = np.abs(measured(model, fabric)["value"].to_numpy() - in_float32).max()
    conditions = f"{in_rounds(setting.sizes.slow_rounds)} of {len(pets)} photographs of the test split; {size} px, width {parameters.width}"
    return _judged(
        network,
        taken,
        difference,
        f"{conditions}; ours also counts at the photographs' own size, under every border policy, and finds its cache made",
    )


def _judged(network: str, taken: dict[str, list[float]], difference: float, conditions: str) -> Row:
    where = f"evaluation of {TITLES[network]}"
    most = spread(quotient(taken[REPORT], taken[FORWARD]))["median"]
    at_first = [ours + cache for ours, cache in zip(taken["ours"], taken[CACHE], strict=True)]
    first = spread(quotient(taken[REPORT], at_first))["median"]
    targets = [
        target(f"{where}: speed over the report's inference", speed_over(taken, REPORT), at_least=3),
        target(f"{where}: largest difference of a Dice (all conventions, policies) from float32's", difference, at_most=0.0005),
    ]
    return build_row(
        f"evaluation_{network}",
        where,
        "s",
        taken,
        rivals=[REPORT],
        limits=[FORWARD],
        conditions=conditions,
        targets=targets,
        notes=[
            f"its forward passes alone are {most:.2f} x as fast as the report's inference",
            f"with the cache made anew, as at a first evaluation, ours is {first:.2f} x as fast",
        ],
    )


def _trained(setting: Setting, network: str, parameters) -> tuple[nn.Module, dict]:
    """The network as the row of its epoch leaves it, which trains it here where that row is not measured."""
    path = setting.folder / f"epoch_{network}" / "model.safetensors"
    if not path.is_file():
        print(f"  training {TITLES[network]}, to have something to evaluate", flush=True)
        OurEpochs(setting, parameters, path.parent.name)()
    return load_model(path)


def _forward_passes(model: nn.Module, cache, description: dict, fabric: Fabric, batch_size: int) -> Callable[[], None]:
    """The same passes of the same network, made ready before, of which nothing is measured."""
    prepared = for_inference(model, fabric)

    def run() -> None:
        map_passes(lambda rows, logits: None, prepared, cache, description, fabric, batch_size)

    return run


EVALUATIONS = {f"evaluation_{network}": evaluation(network) for network in REPORT_NETWORKS}
