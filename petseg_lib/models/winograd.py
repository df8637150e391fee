"""Padded 3x3 convolutions in 1 / 4 or 4 / 9 of the multiplications: Winograd's way, as matrix products.

F(4x4, 3x3) and F(2x2, 3x3) of Lavin and Gray 2016, "Fast algorithms for convolutional neural networks". A tile of an image's
pixels with those around it, and a filter, are polynomials of two variables. Both are evaluated at as many points as their
product needs; at each point a matrix product over the channels multiplies all tiles by all filters; and the values at the
points give the tile of the result. Which points, chooses how much bf16's rounding grows: for tiles of 4 px at 0, +-sqrt(1/2),
+-sqrt(2) and infinity the error of what follows a ReLU is 1.3% of its spread (1.5% without one, as for gradients), at the usual
0, +-1, +-2 and infinity 2.6%; for tiles of 2 px it is 0.5%, and a convolution's own 0.2%.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Of one axis, by the side of a tile; infinity is one more.
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))}
TILES_A_PRODUCT = 256  # at a time without gradients, so that what lies between two products stays in the processor's cache


class Transforms(NamedTuple):
    """From pixels to points and back, of both axes at once: P = (tile + 2)**2 points.

    window: (P, P), from (tile + 2)**2 pixels. filters: (P, 9), from 3x3 weights. tile: (tile**2, P), to a tile's pixels.
    """

    window: Tensor
    filters: Tensor
    tile: Tensor


@cache
def transforms(side: int, dtype: torch.dtype) -> Transforms:
    """Those of tiles of 2 or 4 px."""
    points = POINTS[side]
    window, filters = np.zeros((side + 2, side + 2)), np.zeros((side + 2, 3))
    for row, point in enumerate(points):
        others = np.poly(points[:row] + points[row + 1 :])  # of the polynomial that is zero at all points but this one
        window[row, :-1] = others[::-1]
        filters[row] = point ** np.arange(3) / np.polyval(others, point)
    window[-1] = np.poly(points)[::-1]
    filters[-1, -1] = 1
    tile = np.vander((*points, 0.0), side, increasing=True).T
    tile[:, -1] = np.arange(side) == side - 1
    return Transforms(*(torch.from_numpy(np.kron(each, each)).to(dtype) for each in (window, filters, tile)))


def filters_at_points(weight: Tensor, side: int, dtype: torch.dtype) -> Tensor:
    """(K, C, 3, 3) -> (P, K, C)."""
    taps = weight.permute(2, 3, 0, 1).to(dtype).flatten(0, 1).flatten(1)
    return (transforms(side, dtype).filters @ taps).unflatten(1, weight.shape[:2])


def convolve(x: Tensor, filters: Tensor, side: int, bias: Tensor | None = None) -> Tensor:
    """(N, H, W, C), (P, K, C), (K,) -> (N, H, W, K); H and W are multiples of `side`, the tile's."""
    count, height, width, _ = x.shape
    result = x.new_empty(count, height, width, filters.shape[1])
    padded = _pad(x)
    images = max(1, TILES_A_PRODUCT * side**2 // (height * width))
    band = max(1, TILES_A_PRODUCT * side // width) * side  # rows of pixels
    for first in range(0, count, images):
        for top in range(0, height, band):
            into = result[first : first + images, top : top + band]
            windows = _windows_at_points(padded[first : first + images, top : top + into.shape[1] + 2], side)
            _multiply(windows, filters, side, into, bias)
    return result


def _pad(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 1, 1, 1, 1))


def _multiply(windows: Tensor, filters: Tensor, side: int, result: Tensor, bias: Tensor | None = None) -> None:
    """(P, N tiles, C), (P, K, C), (K,) -> (N, H, W, K), written into `result`."""
    count, height, width, outputs = result.shape
    rows, columns = height // side, width // side
    products = (windows @ filters.mT).flatten(1)
    tiles = (transforms(side, products.dtype).tile @ products).view(side, side, count, rows, columns, outputs)
    if bias is not None:
        tiles += bias
    result.view(count, rows, side, columns, side, outputs).copy_(tiles.permute(2, 3, 0, 4, 1, 5))


def _windows_at_points(padded: Tensor, side: int) -> Tensor:
    """(N, H + 2, W + 2, C) -> (P, N tiles, C): each tile with a pixel more around it."""
    windows = padded.unfold(1, side + 2, side).unfold(2, side + 2, side).permute(4, 5, 0, 1, 2, 3)
    points = (side + 2) ** 2
    return (transforms(side, padded.dtype).window @ windows.reshape(points, -1)).view(points, -1, padded.shape[-1])


class Winograd(torch.autograd.Function):
    """`convolve` with weights, (K, C, 3, 3), and with gradients of both: they take the same way back, for which the transformed
    windows and filters are kept, 9 / 4 and 4 times as much as x and the weights (4 times and 16 / 9 with tiles of 2 px).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, side: int) -> Tensor:
        filters, windows = filters_at_points(weight, side, x.dtype), _windows_at_points(_pad(x), side)
        ctx.save_for_backward(filters, windows)
        ctx.side, ctx.shape, ctx.weight_dtype = side, x.shape, weight.dtype
        result = x.new_empty(*x.shape[:3], len(weight))
        _multiply(windows, filters, side, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        filters, windows = ctx.saved_tensors
        side, (points, outputs, channels) = ctx.side, filters.shape
        count, height, width, _ = ctx.shape
        rows, columns = height // side, width // side
        matrices = transforms(side, filters.dtype)

        tiles = gradient.reshape(count, rows, side, columns, side, outputs).permute(2, 4, 0, 1, 3, 5)
        products = (matrices.tile.T @ tiles.reshape(side**2, -1)).view(points, -1, outputs)

        of_filters = (products.mT @ windows).flatten(1)
        of_weight = (matrices.filters.T @ of_filters).view(3, 3, outputs, channels).permute(2, 3, 0, 1)

        of_windows = matrices.window.T @ (products @ filters).flatten(1)
        of_windows = of_windows.view(side + 2, side + 2, count, rows, columns, channels).permute(2, 3, 0, 4, 1, 5)
        return _joined(of_windows), of_weight.to(ctx.weight_dtype, memory_format=torch.channels_last), None


def _joined(windows: Tensor) -> Tensor:
    """(N, rows, side + 2, columns, side + 2, C) -> (N, rows side, columns side, C): sums where windows overlap, by two pixels."""
    count, rows, window, columns, _, channels = windows.shape
    side = window - 2
    padded = windows.new_zeros(count, rows + 1, side, columns + 1, side, channels)
    padded[:, :-1, :, :-1] = windows[:, :, :side, :, :side]
    padded[:, :-1, :, 1:, :2] += windows[:, :, :side, :, side:]
    padded[:, 1:, :2, :-1] += windows[:, :, side:, :, :side]
    padded[:, 1:, :2, 1:, :2] += windows[:, :, side:, :, side:]
    pixels = padded.view(count, (rows + 1) * side, (columns + 1) * side, channels)
    return pixels[:, 1 : 1 + rows * side, 1 : 1 + columns * side].contiguous()
