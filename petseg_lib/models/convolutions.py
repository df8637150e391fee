"""The convolutions that the networks are made of, and how a CPU computes them where PyTorch's way is not the fastest."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petseg_lib.models.winograd import Winograd, convolve, filters_at_points

FEW_PIXELS, MANY_WEIGHTS = 4 * 4, 256 * 512 * 9  # of an image: a matrix product is faster on a CPU for 1 to 32 of them
GRADIENT_PIXELS, GRADIENT_WEIGHTS = 8 * 8, 128 * 256 * 9  # the same of the weights' gradient alone, for a processor with AMX
ONEDNN_BLOCK = 16  # channels
# The side of Winograd's tiles, and the channels, in and out, and pixels of an image from which on they pay.
WINOGRAD_FROM = {
    torch.bfloat16: ((4, 128, 16 * 16), (2, 256, 8 * 8)),
    torch.float32: ((4, 64, 16 * 16), (2, 128, 8 * 8)),
}


class Conv3x3(nn.Conv2d):
    """A padded convolution, 3x3. Where `_products_pay`, a CPU computes that of few pixels by many weights as one matrix product,
    and that of many channels by many pixels in Winograd's way; with AMX the weights' gradient alone of somewhat more pixels.

    Of few pixels, reading the weights is most of the work, and oneDNN's convolution reads and writes them several times. How
    many images there are chooses no way, so that no image is rounded otherwise than in a batch of others.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)
        self.filters: dict[int, Tensor] | None = None

    def keep_filters(self) -> None:
        """Transform the filters for Winograd's way once, and not in every pass: for weights that no longer change.

        Passes with gradients do not use them. They take up to four times the memory of the weights in the pass' precision.
        """
        self.filters = {}

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if not _products_pay(x):
            return super().forward(x)
        stride = self.stride[0]
        height, width = (-(-side // stride) for side in x.shape[-2:])
        if height * width <= FEW_PIXELS and self.weight.numel() >= MANY_WEIGHTS:
            weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # which copies nothing where channels lie last
            return F.linear(_Windows.apply(x.permute(0, 2, 3, 1), stride), weight, self.bias).permute(0, 3, 1, 2)
        pays = height * width <= GRADIENT_PIXELS and self.weight.numel() >= GRADIENT_WEIGHTS and _multiplies_matrices(x.dtype)
        if pays and torch.is_grad_enabled():
            return _plus(_WeightsByProduct.apply(x, self.weight, stride), self.bias)
        tile = self._tile(x.dtype, height, width)
        if stride > 1 or tile is None or not _winograd_pays(x.dtype):
            return super().forward(x)
        pixels = x.permute(0, 2, 3, 1)
        if torch.is_grad_enabled():
            return _plus(Winograd.apply(pixels, self.weight, tile).permute(0, 3, 1, 2), self.bias)
        return convolve(pixels, self._filters(tile, x.dtype), tile, self.bias).permute(0, 3, 1, 2)

    def _filters(self, tile: int, dtype: torch.dtype) -> Tensor:
        if self.filters is None:
            return filters_at_points(self.weight, tile, dtype)
        if tile not in self.filters:
            self.filters[tile] = filters_at_points(self.weight, tile, dtype)
        return self.filters[tile]

    def _tile(self, dtype: torch.dtype, height: int, width: int) -> int | None:
        """The side of Winograd's tiles that is the fastest; None: a convolution is."""
        for tile, channels, pixels in WINOGRAD_FROM.get(dtype, ()):
            many = min(self.in_channels, self.out_channels) >= channels and height * width >= pixels
            if many and height % tile == width % tile == 0:
                return tile
        return None


class Conv1x1(nn.Conv2d):
    """A convolution, 1x1, made without a bias.

    oneDNN's weights' gradient of one with a stride writes beyond its memory where it has fewer channels than a block, 8 with
    AVX2 and 16 with AVX-512 (PyTorch 2.14; uxlfoundation/oneDNN issue 6035): on a CPU the pixels that the stride passes over
    are then left out before it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if x.device.type != "cpu" or self.in_channels >= ONEDNN_BLOCK:
            return super().forward(x)
        stride = self.stride[0]
        return F.conv2d(x[..., ::stride, ::stride], self.weight, self.bias)  # of a BatchNorm folded into it


class UpConv2x2(nn.ConvTranspose2d):
    """A transposed convolution, 2x2 with stride 2, which doubles the resolution.

    On a CPU the bias' gradient takes more than half of the time of oneDNN's, which is therefore trained without it, the bias
    added to what it gives. Where `_products_pay`, a matrix product is faster yet, and for few pixels always.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2H, 2W)."""
        count, _, height, width = x.shape
        trained_bias = self.bias is not None and torch.is_grad_enabled()
        if _products_pay(x) and (trained_bias or height * width <= FEW_PIXELS):
            weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
            squares = F.linear(x.permute(0, 2, 3, 1), weight, None if self.bias is None else self.bias.repeat(4))
            squares = squares.view(count, height, width, 2, 2, self.out_channels)
            return squares.transpose(2, 3).reshape(count, 2 * height, 2 * width, self.out_channels).permute(0, 3, 1, 2)
        if x.device.type == "cpu" and trained_bias:
            return _plus(F.conv_transpose2d(x, self.weight, stride=2), self.bias)
        return super().forward(x)


def _plus(result: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution's result with the bias that it was computed without."""
    return result if bias is None else result + bias.to(result.dtype).view(-1, 1, 1)


def _products_pay(x: Tensor) -> bool:
    """Whether a CPU outruns oneDNN's convolutions by matrix products: in bf16, and in float32 with AVX2 and no AVX-512.

    What autocast will make bf16 of, and what inductor compiles, is left to them.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return x.device.type == "cpu" and x.dtype == torch.bfloat16
    return not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu") and _only_avx2()


def _winograd_pays(dtype: torch.dtype) -> bool:
    """Whether a processor multiplies by vector instructions: bf16 by matrix ones (AMX) leaves too little time to save.

    inductor is left to do its own.
    """
    if torch.compiler.is_compiling():
        return False
    if dtype == torch.float32:
        return _only_avx2()
    return bool(_capabilities().get("avx512_bf16")) and not _multiplies_matrices(dtype)


def _multiplies_matrices(dtype: torch.dtype) -> bool:
    """Whether a processor has instructions for matrices of it (AMX), which inductor is left to use by itself."""
    return dtype == torch.bfloat16 and bool(_capabilities().get("amx_bf16")) and not torch.compiler.is_compiling()


def _only_avx2() -> bool:
    capabilities = _capabilities()
    return bool(capabilities.get("avx2")) and not capabilities.get("avx512_f")


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


class _WeightsByProduct(torch.autograd.Function):
    """(N, C, H, W) -> (N, out_channels, H / stride, W / stride): oneDNN's convolution but for the weights' gradient, one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        used = weight.to(x.dtype)
        ctx.save_for_backward(x, used)
        ctx.stride, ctx.dtype = stride, weight.dtype
        return F.conv2d(x, used, stride=stride, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = torch.nn.grad.conv2d_input(x.shape, weight, gradient, ctx.stride, padding=1)
        if ctx.needs_input_grad[1]:
            windows = _Windows.apply(x.permute(0, 2, 3, 1), ctx.stride).flatten(0, 2)
            product = gradient.permute(0, 2, 3, 1).flatten(0, 2).T @ windows
            of_weight = product.view(-1, 3, 3, x.shape[1]).permute(0, 3, 1, 2).to(ctx.dtype)
        return of_x, of_weight, None


def _places(shape: torch.Size, stride: int) -> list[tuple[slice, slice, slice]]:
    """Where each of the 3x3 pixels of all windows lies in the padded images."""
    _, height, width, _ = shape
    return [
        (slice(None), slice(row, row + height, stride), slice(column, column + width, stride))
        for row in range(3)
        for column in range(3)
    ]
