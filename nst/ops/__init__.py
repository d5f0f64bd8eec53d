"""Custom autograd functions: ReLUs with other gradients, and a blur that is twice differentiable; and layers
that are modulated or equalized."""

from nst.ops.blur import Blur, blur
from nst.ops.equalized import EqualizedConv2d, EqualizedLinear, PixelNorm
from nst.ops.modulated import ModulatedConv2d
from nst.ops.relu import ReLUBackward, relu, relu_backward

__all__ = [
    "Blur",
    "EqualizedConv2d",
    "EqualizedLinear",
    "ModulatedConv2d",
    "PixelNorm",
    "ReLUBackward",
    "blur",
    "relu",
    "relu_backward",
]
