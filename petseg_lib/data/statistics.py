"""Mean and standard deviation of the colour channels, exact, in one pass and constant memory.

Two definitions stand side by side, both on the 0..1 scale:

- pixel-pooled: every pixel of every photograph weighs the same.
- image-averaged: the mean of the photographs' own means, so that every photograph weighs the same, and the standard
  deviation of all pixels about that mean. This is the definition of the source report.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.std import tqdm

from petseg_lib.data.pets import DatasetError, read_photograph

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
REPORT_MEAN: Triple = (0.481, 0.449, 0.396)
REPORT_STD: Triple = (0.269, 0.265, 0.273)
