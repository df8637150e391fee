"""What a training shows while it runs."""

import pytest
import torch

from petseg_lib.data.loaders import Batch
from petseg_lib.training_log import line_of, log_epoch

DESCRIPTION = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.1)}
ROW = {
    "epoch": 3,
    "learning_rate": 1e-3,
    "train_loss": 0.5,
    "train_dice": 0.7,
    "valid_loss": 0.4,
    "valid_dice": 0.8,
    "seconds": 2.54,
}


class Written:
    """What TensorBoard's writer was given."""

    def __init__(self) -> None:
        self.scalars, self.images = {}, {}

    def add_scalar(self, name, value, step):
        self.scalars[name, step] = value

    def add_image(self, name, picture, step):
        self.images[step] = picture


def seen(count: int = 6) -> tuple[Batch, torch.Tensor]:
    torch.manual_seed(0)
    target = (torch.rand(count, 1, 5, 7) > 0.5).float()
    batch = Batch(torch.randn(count, 3, 5, 7), target, torch.ones_like(target, dtype=torch.bool), torch.arange(count))
    return batch, 3 * torch.randn(count, 1, 5, 7)


@pytest.mark.parametrize(("better", "end"), [(True, "2.5 s  best"), (False, "2.5 s")])
def test_an_epochs_line_names_all_figures_and_the_best(better, end):
    said = line_of(ROW, 120, better)
    assert said == f"epoch   3/120  train loss 0.5000 Dice 0.7000  valid loss 0.4000 Dice 0.8000  {end}"


def test_every_figure_but_the_epochs_number_is_a_curve():
    written = Written()
    log_epoch(written, ROW, 120, seen(), DESCRIPTION)
    names = {"learning_rate": 1e-3, "train/loss": 0.5, "train/dice": 0.7, "valid/loss": 0.4, "valid/dice": 0.8, "seconds": 2.54}
    assert written.scalars == {(name, 3): value for name, value in names.items()}


@pytest.mark.parametrize(("epochs", "steps"), [(20, range(2, 21, 2)), (10, range(1, 11)), (4, range(1, 5))])
def test_pictures_come_ten_times_in_a_training_and_after_its_last_epoch(epochs, steps):
    written = Written()
    for epoch in range(1, epochs + 1):
        log_epoch(written, ROW | {"epoch": epoch}, epochs, seen(), DESCRIPTION)
    assert list(written.images) == list(steps)


def test_a_picture_has_photographs_above_truth_above_probability():
    written, (batch, logits) = Written(), seen()
    log_epoch(written, ROW | {"epoch": 1}, 1, (batch, logits), DESCRIPTION)
    picture = written.images[1]
    assert picture.shape == (3, 3 * 5, 4 * 7), "four photographs side by side"
    for number in range(4):
        photograph, truth, probability = picture[:, :, 7 * number : 7 * number + 7].split(5, dim=1)
        colours = torch.tensor(DESCRIPTION["std"]).view(3, 1, 1) * batch.image[number] + torch.tensor(DESCRIPTION["mean"]).view(
            3, 1, 1
        )
        assert torch.allclose(photograph, colours.clamp(0, 1))
        assert torch.equal(truth, batch.target[number].expand(3, 5, 7))
        assert torch.allclose(probability, logits[number].sigmoid().expand(3, 5, 7))
