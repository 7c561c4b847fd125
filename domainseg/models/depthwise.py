"""Depthwise convolutions whose gradients do not take most of a training on a processor.

Under bfloat16 the processor's library has fast kernels for the forward pass and for dense
convolutions; the gradient of a depthwise one with a stride, or of 5 x 5, falls to a reference
loop. What is computed here is the same, by a way whose gradient is fast
(``benchmarks/depthwise.py``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution; on a processor it is computed by another way where that is faster.

    In training under bfloat16 one of 3 x 3 with a stride is computed at every pixel, of which
    every second is kept; wider ones are computed in float32. Without gradients an image whose
    padding is wider behind than before is not copied to be padded. Elsewhere it is what it
    replaces, to the bit.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride, self.dilation = convolution.stride, convolution.dilation
        self.padding = convolution.padding
        self.same = isinstance(convolution, Conv2dSame)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name is nn.Conv2d's)
        """Return the convolution of ``(B, C, H, W)``."""
        on_cpu = input.device.type == "cpu"
        detour = self.training and on_cpu and torch.is_autocast_enabled("cpu")
        if on_cpu and not torch.is_grad_enabled() and self._lacks_one_more_behind(input):
            return self._uncopied(input)
        if self.same:
            padded = pad_same(input, list(self.kernel_size), self.stride, self.dilation)  # type: ignore[arg-type]
        else:
            padded = input
        if not detour:
            return self._convolved(padded, self.stride)
        if self.kernel_size[0] > 3:
            with torch.autocast("cpu", enabled=False):
                made = self._convolved(padded.float(), self.stride)
            return made.to(torch.get_autocast_dtype("cpu"))
        every = self._convolved(padded, (1, 1))
        return every[:, :, :: self.stride[0], :: self.stride[1]]

    def _lacks_one_more_behind(self, given: Tensor) -> bool:
        """Return whether the padding is one wider behind an image than before it."""
        odd = all(side % 2 and side > 1 for side in self.kernel_size)
        even = not (given.shape[2] % 2 or given.shape[3] % 2)
        return self.same and odd and even and self.stride == (2, 2) and self.dilation == (1, 1)

    def _uncopied(self, given: Tensor) -> Tensor:
        """Return the convolution of an image that is not copied to be padded.

        A row and a column of zeros before the kernel make its padding the same on all sides,
        which the library does on its way.
        """
        grown = F.pad(self.weight, (1, 0, 1, 0))
        around = tuple(side // 2 for side in self.kernel_size)
        return F.conv2d(given, grown, self.bias, self.stride, around, 1, self.groups)

    def _convolved(self, padded: Tensor, stride: tuple[int, ...]) -> Tensor:
        padding = 0 if self.same else self.padding
        return F.conv2d(padded, self.weight, self.bias, stride, padding, self.dilation, self.groups)


def with_fast_depthwise(network: nn.Module) -> nn.Module:
    """Replace the depthwise convolutions of ``network`` in place and return it.

    Names and weights stay what they are.
    """
    found = [
        (name, module)
        for name, module in network.named_modules()
        if type(module) in (nn.Conv2d, Conv2dSame)
        and isinstance(module, nn.Conv2d)
        and 1 < module.groups == module.in_channels == module.out_channels
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    ]
    for name, module in found:
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, DepthwiseConv2d(module))
    return network
