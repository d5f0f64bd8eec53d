"""Custom autograd functions: ReLUs with other gradients, a blur that is twice differentiable, layers that are
modulated or equalized, and a faster convolution."""

from nst.ops.blur import Blur, blur
from nst.ops.equalized import EqualizedConv2d, EqualizedLinear, PixelNorm
from nst.ops.modulated import ModulatedConv2d
from nst.ops.relu import ReLUBackward, relu, relu_backward
from nst.ops.winograd import conv3x3

__all__ = [
    "Blur",
    "EqualizedConv2d",
    "EqualizedLinear",
    "ModulatedConv2d",
    "PixelNorm",
    "ReLUBackward",
    "blur",
    "conv3x3",
    "relu",
    "relu_backward",
]
