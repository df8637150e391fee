"""Every picture of the project: each function takes data and returns a matplotlib Figure."""

from petseg_lib.figures.ablations import ablation_panel, answers
from petseg_lib.figures.comparison import cost_against_dice, dice_by_breed, dice_distribution, difference_histogram
from petseg_lib.figures.dataset import (
    breed_counts,
    channel_histogram,
    foreground_share,
    mean_std_comparison,
    size_scatter,
)
from petseg_lib.figures.export import save_figure
from petseg_lib.figures.photographs import augmentation_grid, batch_grid, border_policies, browse_panel, sample_grid
from petseg_lib.figures.predictions import (
    Prediction,
    image_dice,
    move_threshold,
    prediction_grid,
    prediction_panel,
    two_model_panel,
)
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
    "cost_against_dice",
    "dice_by_breed",
    "dice_distribution",
    "dice_over_time",
    "difference_histogram",
    "foreground_share",
    "image_dice",
    "mean_std_comparison",
    "move_threshold",
    "prediction_grid",
    "prediction_panel",
    "sample_grid",
    "save_figure",
    "size_scatter",
    "training_curves",
    "two_model_panel",
]
