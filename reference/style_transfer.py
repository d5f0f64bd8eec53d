"""Style transfer as the tutorial and the paper have it, and VGGs with plain random parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "MEAN",
    "STD",
    "backward_by_loss",
    "backward_together",
    "convolutions",
    "gatys_losses",
    "published_state",
    "tutorial_losses",
    "vgg",
    "vgg19",
]

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def tutorial_losses(
    cnn: nn.Sequential, photo: Tensor, style: Tensor, weight: float
) -> Callable[[Tensor], list[Tensor]]:
    """The PyTorch tutorial: convolutions are counted; losses sit behind conv_1 ... conv_5 (style) and conv_4
    (content); Gram matrices are divided by a*b*c*d; targets and inputs are multiplied by a weight, so that the
    loss is multiplied by its square. The whole network runs. Gives the losses one by one."""

    def gram(x: Tensor) -> Tensor:
        a, b, c, d = x.size()
        flat = x.view(a * b, c * d)
        return torch.mm(flat, flat.t()) / (a * b * c * d)

    with torch.no_grad():
        content_target = convolutions(cnn, photo)[3]
        style_targets = [gram(x) * weight for x in convolutions(cnn, style)[:5]]

    def losses(image: Tensor) -> list[Tensor]:
        found = convolutions(cnn, image)
        content = F.mse_loss(found[3], content_target)
        styles = [
            F.mse_loss(gram(x) * weight, target) for x, target in zip(found[:5], style_targets, strict=True)
        ]
        return [content, *styles]

    return losses


def convolutions(modules: Iterable[nn.Module], image: Tensor) -> list[Tensor]:
    """The outputs of all convolutions, in order."""
    x, found = (image - MEAN.to(image)) / STD.to(image), []
    for module in modules:
        x = module(x)
        if isinstance(module, nn.Conv2d):
            found.append(x)
    return found


def backward_by_loss(losses: Callable[[Tensor], list[Tensor]], x: Tensor) -> tuple[float, Tensor]:
    """The total and its gradient at `x`, as the tutorial's loss modules had them: one backward pass each."""
    x = x.detach().clone().requires_grad_()
    terms = losses(x)
    for term in terms:
        term.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return sum(float(term.detach()) for term in terms), x.grad


def backward_together(losses: Callable[[Tensor], list[Tensor]], x: Tensor) -> tuple[float, Tensor]:
    """The same by one backward pass for the sum, as the tutorial has it today."""
    x = x.detach().clone().requires_grad_()
    total = torch.stack(losses(x)).sum()
    (grad,) = torch.autograd.grad(total, x)
    return float(total.detach()), grad


def gatys_losses(
    cnn: nn.Sequential, photo: Tensor, style: Tensor, alpha: float, beta: float
) -> Callable[[Tensor], list[Tensor]]:
    """Gatys, Ecker, Bethge 2016, equations 1 to 7, sums written out; a VGG with average pooling, as far as it
    is given, to relu5_1 at least. All of that runs. Gives the weighted losses one by one."""
    vgg19_ = isinstance(cnn[16], nn.Conv2d)  # a fourth one in its third block
    fourth, fifth = (19, 28) if vgg19_ else (17, 24)  # conv4_1 and conv5_1
    names = {1: "relu1_1", 6: "relu2_1", 11: "relu3_1"}
    names |= {fourth + 1: "relu4_1", fourth + 3: "relu4_2", fifth + 1: "relu5_1"}

    def activations(image: Tensor) -> dict[str, Tensor]:
        x, found = (image - MEAN.to(image)) / STD.to(image), {}
        for index, module in enumerate(cnn):
            x = F.avg_pool2d(x, 2) if isinstance(module, nn.MaxPool2d) else module(x)
            if index in names:
                found[names[index]] = x[0].flatten(1)  # F^l: N_l filters, M_l positions
        return found

    with torch.no_grad():
        content_target = activations(photo)["relu4_2"]
        style_targets = {layer: x @ x.T / x.shape[1] for layer, x in activations(style).items()}

    def losses(image: Tensor) -> list[Tensor]:
        found = activations(image)
        terms = [alpha * ((found["relu4_2"] - content_target) ** 2).sum() / 2]
        for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
            x = found[layer]
            n, m = x.shape
            # The style picture may have another number of positions: its Gram is scaled to the photograph's.
            error = ((x @ x.T - style_targets[layer] * m) ** 2).sum() / (4 * n**2 * m**2)
            terms.append(beta * error / 5)
        return terms

    return losses


def vgg19(seed: int = 0) -> nn.Sequential:
    """VGG19's convolutional part with plain random parameters; ReLUs out of place, as the tutorial has them."""
    return vgg((2, 2, 4, 4, 4), seed)


def vgg(
    blocks: Sequence[int], seed: int = 0, channels: Sequence[int] = (64, 128, 256, 512, 512)
) -> nn.Sequential:
    """A network as `vgg19`, with so many convolutions, of so many channels, in each block."""
    before, layers = 3, list[nn.Module]()
    generator = torch.Generator().manual_seed(seed)
    widths = ([width] * count + [0] for width, count in zip(channels, blocks, strict=True))
    for width in itertools.chain(*widths):
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        convolution = nn.Conv2d(before, width, 3, padding=1)
        nn.init.kaiming_normal_(convolution.weight, generator=generator)
        assert convolution.bias is not None
        nn.init.normal_(convolution.bias, std=0.1, generator=generator)
        layers += [convolution.requires_grad_(False), nn.ReLU(inplace=False)]
        before = width
    return nn.Sequential(*layers).eval()


def published_state(cnn: nn.Sequential) -> dict[str, Tensor]:
    """The parameters of `cnn` under the names of a published state dict."""
    return {f"features.{name}": tensor for name, tensor in cnn.state_dict().items()}
