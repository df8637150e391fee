"""Every picture of the project: functions that take data and return a matplotlib Figure, and what they show and are saved by."""

from petseg_lib.figures.ablations import ablation_panel, answers, variants
from petseg_lib.figures.calibration import reliability_diagram, threshold_curves
from petseg_lib.figures.comparison import (
    cost_against_dice,
    dice_by_breed,
    dice_distribution,
    difference_histogram,
    differences_from_best,
)
from petseg_lib.figures.conventions import convention_ranges
from petseg_lib.figures.cutouts import cutout_grid, cutout_panel
from petseg_lib.figures.dataset import (
    breed_counts,
    channel_histogram,
    foreground_share,
    mean_std_comparison,
    size_scatter,
)
from petseg_lib.figures.export import save_figure
from petseg_lib.figures.network import network_diagram
from petseg_lib.figures.photographs import augmentation_grid, batch_grid, border_policies, browse_panel, sample_grid
from petseg_lib.figures.predictions import (
    Prediction,
    failure_gallery,
    image_dice,
    model_panel,
    move_threshold,
    prediction_grid,
    prediction_panel,
)
from petseg_lib.figures.strata import dice_by_stratum
from petseg_lib.figures.training import dice_over_time, training_curves

__all__ = [
    "Prediction",
    "ablation_panel",
    "answers",
    "augmentation_grid",
    "batch_grid",
    "border_policies",
    "breed_counts",
    "browse_panel",
    "channel_histogram",
    "convention_ranges",
    "cost_against_dice",
    "cutout_grid",
    "cutout_panel",
    "dice_by_breed",
    "dice_by_stratum",
    "dice_distribution",
    "dice_over_time",
    "difference_histogram",
    "differences_from_best",
    "failure_gallery",
    "foreground_share",
    "image_dice",
    "mean_std_comparison",
    "model_panel",
    "move_threshold",
    "network_diagram",
    "prediction_grid",
    "prediction_panel",
    "reliability_diagram",
    "sample_grid",
    "save_figure",
    "size_scatter",
    "threshold_curves",
    "training_curves",
    "variants",
]
