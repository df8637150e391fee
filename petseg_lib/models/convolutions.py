"""The convolutions that the networks are made of, and how a CPU computes them where PyTorch's way is not the fastest."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

FEW_PIXELS, MANY_WEIGHTS = 4 * 4, 256 * 512 * 9  # of an image: a matrix product is faster on a CPU for 1 to 32 of them
WINOGRAD_CHANNELS = 256  # in and out, from which on what Winograd's way adds takes less time than what it saves
WINOGRAD_PIXELS = {True: 8 * 8, False: 16 * 16}  # of an image, likewise: with gradients and without
# From a filter's three weights to its values at 0, 1, -1 and infinity, two of them halved (Lavin and Gray 2016, section 4.1).
FILTER_POINTS = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


class Conv3x3(nn.Conv2d):
    """A padded convolution, 3x3. In bf16 a CPU computes that of few pixels by many weights as one matrix product, and that of
    many channels by many pixels in Winograd's way.

    Of few pixels, reading the weights is most of the work, and oneDNN's convolution reads and writes them several times. How
    many images there are chooses no way, so that no image is rounded otherwise than in a batch of others.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if x.device.type != "cpu" or x.dtype != torch.bfloat16:
            return super().forward(x)
        stride = self.stride[0]
        height, width = (-(-side // stride) for side in x.shape[-2:])
        if height * width <= FEW_PIXELS and self.weight.numel() >= MANY_WEIGHTS:
            weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # which copies nothing where channels lie last
            return F.linear(_Windows.apply(x.permute(0, 2, 3, 1), stride), weight, self.bias).permute(0, 3, 1, 2)
        wide = min(self.in_channels, self.out_channels) >= WINOGRAD_CHANNELS
        large = height * width >= WINOGRAD_PIXELS[torch.is_grad_enabled()]
        if wide and large and stride == 1 and height % 2 == width % 2 == 0 and _winograd_pays():
            result = _Winograd.apply(x.permute(0, 2, 3, 1), self.weight).permute(0, 3, 1, 2)
            return result if self.bias is None else result + self.bias.to(x.dtype).view(-1, 1, 1)
        return super().forward(x)


class UpConv2x2(nn.ConvTranspose2d):
    """A transposed convolution, 2x2 with stride 2, which doubles the resolution.

    On a CPU the bias' gradient takes more than half of the time of oneDNN's, which is therefore trained without it, the bias
    added to what it gives. In bf16 a matrix product is faster yet, and for few pixels always.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2H, 2W)."""
        count, _, height, width = x.shape
        trained_bias = self.bias is not None and torch.is_grad_enabled()
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and (trained_bias or height * width <= FEW_PIXELS):
            weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
            squares = F.linear(x.permute(0, 2, 3, 1), weight, None if self.bias is None else self.bias.repeat(4))
            squares = squares.view(count, height, width, 2, 2, self.out_channels)
            return squares.transpose(2, 3).reshape(count, 2 * height, 2 * width, self.out_channels).permute(0, 3, 1, 2)
        if x.device.type == "cpu" and trained_bias:
            result = F.conv_transpose2d(x, self.weight, stride=2)
            return result + self.bias.to(result.dtype).view(-1, 1, 1)
        return super().forward(x)


def _winograd_pays() -> bool:
    """Whether a processor multiplies bf16 by vector instructions: by matrix ones (AMX) there is too little time to save.

    inductor is left to do its own.
    """
    capabilities = _capabilities()
    return bool(capabilities.get("avx512_bf16")) and not capabilities.get("amx_bf16") and not torch.compiler.is_compiling()


@cache
def _capabilities() -> dict[str, Any]:
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


class _Windows(torch.autograd.Function):
    """(N, H, W, C) -> (N, H / stride, W / stride, 9 C): the 3x3 pixels around each, zeros beyond the edge."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int) -> Tensor:
        ctx.stride, ctx.shape = stride, x.shape
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        return torch.cat([padded[place] for place in _places(x.shape, stride)], dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        count, height, width, channels = ctx.shape
        padded = gradient.new_zeros(count, height + 2, width + 2, channels, dtype=torch.float32)  # nine sums in bf16 lose digits
        for place, part in zip(_places(ctx.shape, ctx.stride), gradient.split(channels, dim=-1), strict=True):
            padded[place] += part
        return padded[:, 1:-1, 1:-1].to(gradient.dtype), None


def _places(shape: torch.Size, stride: int) -> list[tuple[slice, slice, slice]]:
    """Where each of the 3x3 pixels of all windows lies in the padded images."""
    _, height, width, _ = shape
    return [
        (slice(None), slice(row, row + height, stride), slice(column, column + width, stride))
        for row in range(3)
        for column in range(3)
    ]


class _Winograd(torch.autograd.Function):
    """A padded convolution, 3x3, in 4 / 9 of the multiplications: (N, H, W, C), (K, C, 3, 3) -> (N, H, W, K); H and W are even.

    F(2x2, 3x3) of Lavin and Gray 2016, "Fast algorithms for convolutional neural networks": each square of 4x4 pixels, two apart,
    and each filter become 16 values each (along both axes: at four points of a polynomial), which are multiplied in 16 matrix
    products over the channels; each 16 products become 2x2 pixels. A step's gradients take the same way back, for which four
    times as much as x is kept. In bf16 it rounds in more places than a convolution: an error of 0.7% of the values' spread for 0.2%.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.shape, ctx.weight_dtype = x.shape, weight.dtype
        count, height, width, channels = x.shape
        outputs = len(weight)
        taps = weight.permute(2, 3, 0, 1).to(x.dtype, memory_format=torch.contiguous_format)
        filters = (_both_axes(x) @ taps.flatten(0, 1).flatten(1)).view(16, outputs, channels)
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        columns = x.new_empty(4, count, height + 2, width // 2, channels)
        _to_points(_squares(padded, 2), columns)
        squares = x.new_empty(4, 4, count, height // 2, width // 2, channels)
        _to_points(_squares(columns, 2), squares)
        squares = squares.flatten(0, 1).flatten(1, 3)
        ctx.save_for_backward(squares, filters)
        products = (squares @ filters.mT).view(4, 4, count, height // 2, width // 2, outputs)
        rows = products.new_empty(2, *products.shape[1:])
        _to_pixels(products, rows)
        result = products.new_empty(count, height // 2, 2, width // 2, 2, outputs)
        for row in range(2):
            _to_pixels(rows[row], result[:, :, row].unbind(3))
        return result.view(count, height, width, outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        squares, filters = ctx.saved_tensors
        count, height, width, channels = ctx.shape
        outputs = gradient.shape[-1]
        gradient = gradient.reshape(count, height // 2, 2, width // 2, 2, outputs)
        rows = gradient.new_empty(2, 4, count, height // 2, width // 2, outputs)
        for row in range(2):
            _from_pixels(gradient[:, :, row].unbind(3), rows[row])
        products = gradient.new_empty(4, *rows.shape[1:])
        _from_pixels(rows, products)
        products = products.flatten(0, 1).flatten(1, 3)

        of_taps = _both_axes(gradient).T @ (products.mT @ squares).flatten(1)
        of_weight = of_taps.view(3, 3, outputs, channels).permute(2, 3, 0, 1)

        of_squares = (products @ filters).view(4, 4, count, height // 2, width // 2, channels)
        columns = gradient.new_empty(4, count, height // 2, 2, width // 2, channels)
        _from_points(of_squares, columns.unbind(3), 2)
        of_x = gradient.new_empty(count, height, width // 2, 2, channels)
        _from_points(columns.view(4, count, height, width // 2, channels), of_x.unbind(3), 2)
        return of_x.view(ctx.shape), of_weight.to(ctx.weight_dtype, memory_format=torch.channels_last)


def _both_axes(like: Tensor) -> Tensor:
    """(16, 9): from a filter's 3x3 weights to its values at 4x4 points."""
    return torch.kron(FILTER_POINTS, FILTER_POINTS).to(like.dtype)


def _squares(padded: Tensor, axis: int) -> list[Tensor]:
    """Along an axis of n + 2: the first, second, third and fourth pixel of each square, n / 2 of them."""
    pairs = padded.shape[axis] // 2 - 1
    return [padded.narrow(axis, first, 2 * pairs - 1)[(slice(None),) * axis + (slice(None, None, 2),)] for first in range(4)]


def _to_points(squares: list[Tensor], out: Tensor) -> None:
    torch.sub(squares[0], squares[2], out=out[0])
    torch.add(squares[1], squares[2], out=out[1])
    torch.sub(squares[2], squares[1], out=out[2])
    torch.sub(squares[1], squares[3], out=out[3])


def _to_pixels(products: Tensor, pixels: Sequence[Tensor]) -> None:
    torch.add(products[1], products[2], out=pixels[0]).add_(products[0])
    torch.sub(products[1], products[2], out=pixels[1]).sub_(products[3])


def _from_pixels(pixels: Sequence[Tensor], out: Tensor) -> None:
    """The transpose of `_to_pixels`."""
    out[0].copy_(pixels[0])
    torch.add(pixels[0], pixels[1], out=out[1])
    torch.sub(pixels[0], pixels[1], out=out[2])
    torch.neg(pixels[1], out=out[3])


def _from_points(points: Tensor, pixels: tuple[Tensor, Tensor], axis: int) -> None:
    """The transpose of `_to_points`, of squares that overlap by two pixels, into the even and the odd pixels of an axis.

    The padding is a pixel: an image's even pixels are the second of a square and the fourth of the one before, its odd pixels
    the third of a square and the first of the next.
    """
    even, odd = pixels
    more = even.shape[axis] - 1
    torch.sub(points[1], points[2], out=even).add_(points[3])
    even.narrow(axis, 1, more).sub_(points[3].narrow(axis, 0, more))
    torch.add(points[1], points[2], out=odd).sub_(points[0])
    odd.narrow(axis, 0, more).add_(points[0].narrow(axis, 1, more))
