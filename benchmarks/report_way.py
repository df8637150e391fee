"""The source report's way of doing things, written afresh from its description: the rival of most rows.

Photographs are decoded by Pillow and resized each epoch in the main process; float32; NCHW; plain Adam; a sigmoid before
BCEWithLogits; `loss.item()` and Dice at every step; grids of images to TensorBoard at every step. The networks are ours,
which have the report's layers and numbers of parameters, with PyTorch's own convolutions.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import albumentations
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid
from tqdm.std import tqdm

from benchmarks.plain_networks import with_pytorchs_convolutions
from petseg_lib.data.pets import Pet, PetDataset
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD

BACKGROUND = 2


class ReportPets(Dataset):
    """Decodes and resizes a photograph and its trimap each time it is asked for them."""

    def __init__(self, dataset: PetDataset, pets: Sequence[Pet], size: int, augment: bool) -> None:
        self.dataset, self.pets, self.size = dataset, pets, size
        affine = albumentations.Affine(
            translate_percent=(-0.1, 0.1),
            scale=(0.8, 1.2),
            rotate=(-30, 30),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            p=0.5,
        )
        changes = [affine] if augment else []
        self.transform = albumentations.Compose([*changes, albumentations.Normalize(REPORT_MEAN, REPORT_STD), ToTensorV2()])

    def __len__(self) -> int:
        return len(self.pets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """(3, S, S) float32 and (1, S, S) float32 of 0 and 1."""
        pet = self.pets[index]
        side = (self.size, self.size)
        image = Image.open(self.dataset.photograph_path(pet)).convert("RGB").resize(side, Image.Resampling.BILINEAR)
        trimap = Image.open(self.dataset.trimap_path(pet)).resize(side, Image.Resampling.NEAREST)
        mask = (np.array(trimap) != BACKGROUND).astype(np.float32)
        changed = self.transform(image=np.array(image), mask=mask)
        return changed["image"], changed["mask"].unsqueeze(0)


def report_loader(dataset: PetDataset, pets: Sequence[Pet], size: int, train: bool, batch_size: int = 8) -> DataLoader:
    return DataLoader(ReportPets(dataset, pets, size, train), batch_size=batch_size, shuffle=train, num_workers=0)


def report_dice(probability: Tensor, target: Tensor) -> Tensor:
    """Dice of probabilities, pooled over the batch."""
    return (2 * (probability * target).sum() + 1e-6) / (probability.sum() + target.sum() + 1e-6)


class ReportTraining:
    """The report's loop. It keeps no weights here: it kept only those above a Dice of 0.7."""

    def __init__(self, network: nn.Module, device: str, log_folder: Path) -> None:
        self.device = device
        self.model = nn.Sequential(with_pytorchs_convolutions(network), nn.Sigmoid()).to(device)
        self.cross_entropy = nn.BCEWithLogitsLoss()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, weight_decay=2e-4)
        self.writer = SummaryWriter(log_folder)
        self.steps = 0

    def step(self, image: Tensor, target: Tensor, grids: bool = True) -> tuple[float, float]:
        """One batch: its loss and Dice, and the grids that TensorBoard gets."""
        image, target = image.to(self.device), target.to(self.device)
        probability = self.model(image)
        dice = report_dice(probability, target)
        loss = self.cross_entropy(probability, target) + 1 - dice
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        if grids:
            for name, pictures in (("image", image), ("target", target), ("prediction", probability.detach())):
                self.writer.add_image(name, make_grid(pictures.cpu(), normalize=name == "image"), self.steps)
        return loss.item(), dice.item()

    def epoch(self, train_loader: DataLoader, valid_loader: DataLoader) -> float:
        """Train on one split and measure the other; returns its mean Dice."""
        self.model.train()
        values = []
        with Path(os.devnull).open("w") as nowhere:
            bar = tqdm(train_loader, file=nowhere)
            for image, target in bar:
                values.append(self.step(image, target))
                bar.set_postfix(loss=values[-1][0], dice=values[-1][1])
        for name, mean in zip(("loss", "dice"), np.mean(values, axis=0), strict=True):
            self.writer.add_scalar(f"train/{name}", mean, self.steps)
        valid_dice = report_inference(self.model, valid_loader, self.device)
        self.writer.add_scalar("valid/dice", valid_dice, self.steps)
        return valid_dice


@torch.no_grad()
def report_inference(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], device: str) -> float:
    """Mean over batches of the Dice of probabilities, in float32."""
    model.eval()
    return float(np.mean([report_dice(model(image.to(device)), target.to(device)).item() for image, target in loader]))
