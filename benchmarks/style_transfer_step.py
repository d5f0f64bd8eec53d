"""What one evaluation of loss and gradient costs: ours against plain transcriptions of the tutorial's ways.

plain: the whole network and one backward pass per loss, as it was once, and as many copies of it are. cut: the
network as far as the deepest layer in use, and one backward pass, as it is today. Both presets with the same
parameters, one photograph, CPU time of one thread. Then the default preset, with its Wasserstein loss over the
same with Gram matrices.

VGG16 or VGG19 from the state dict `--weights` (or the file that NST_PRETRAINED names, where it is there), else
VGG19 with random parameters.

    python -m benchmarks.style_transfer_step [--weights FILE] [--side 256] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.weights import add_weights, plain_vgg, weights_name
from nst.features import build_features
from nst.features.layers import layer_names
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from nst.style_transfer.presets import PRESETS
from reference.style_transfer import (
    backward_by_loss,
    backward_together,
    gatys_losses,
    published_state,
    tutorial_losses,
)

Step = Callable[[], tuple[float, Tensor]]
Backward = Callable[[Callable[[Tensor], list[Tensor]], Tensor], tuple[float, Tensor]]


def pictures(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photograph, style, and a point between, (3, side, side): smooth and colorful."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 9, 9, generator=generator)
    photo, style = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1)
    return photo, style, (0.8 * photo + 0.2 * style)


def losses_of(preset: str) -> dict[str, Any]:
    """The options of a preset that make up its loss."""
    others = ("pooling", "coarse_scales", "coarse_steps", "steps", "border_px")
    return {name: value for name, value in PRESETS[preset].items() if name not in others}


def ours(
    preset: str, name: str, cnn: nn.Sequential, photo: Tensor, style: Tensor, point: Tensor, **others: Any
) -> Step:
    options = losses_of(preset) | others
    layers = [*options["content_layers"], *options["style_layers"]]
    network = build_features(name, layers, state=published_state(cnn), pooling=PRESETS[preset]["pooling"])
    objective = StyleObjective(network, style, ObjectiveOptions(**options))
    targets = objective.targets(photo)

    def step() -> tuple[float, Tensor]:
        (evaluation,) = objective.evaluate([point], [targets])
        return evaluation.losses["loss"], evaluation.grad

    return step


def transcription(
    preset: str,
    cnn: nn.Sequential,
    photo: Tensor,
    style: Tensor,
    point: Tensor,
    backward: Backward = backward_by_loss,
) -> Step:
    if preset == "tutorial":
        losses = tutorial_losses(cnn, photo[None], style[None], weight=1000.0)
    else:
        losses = gatys_losses(cnn, photo[None], style[None], alpha=1.0, beta=1e3)

    def step() -> tuple[float, Tensor]:
        loss, grad = backward(losses, point[None])
        return loss, grad[0]

    return step


def cut(preset: str, name: str, cnn: nn.Sequential) -> nn.Sequential:
    """The network as far as a preset looks at it."""
    layers = (*PRESETS[preset]["content_layers"], *PRESETS[preset]["style_layers"])
    return cnn[: 1 + max(layer_names(name).index(layer) for layer in layers)]


def cpu_seconds(step: Step) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_weights(parser)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name, cnn = plain_vgg(arguments.weights)
    photo, style, point = pictures(arguments.side)
    print(f"{name}, {arguments.weights or 'random parameters'}")
    ratios: dict[str, float] = {}
    worst = 0.0
    head = f"{'preset':10} {'ours s':>8} {'':5} {'s':>8} {'ratio':>6} {'spread':>13} "
    print(head + f"{'loss diff':>10} {'grad diff':>10}")
    for preset in ("tutorial", "gatys"):
        steps = {
            "ours": ours(preset, name, cnn, photo, style, point),
            "plain": transcription(preset, cnn, photo, style, point),
            "cut": transcription(preset, cut(preset, name, cnn), photo, style, point, backward_together),
        }
        (loss, grad), *others = (step() for step in steps.values())  # also the warm-up
        rounds = [[cpu_seconds(step) for step in steps.values()] for _ in range(arguments.rounds)]
        mine, *theirs = zip(*rounds, strict=True)
        for who, (other_loss, other_grad), times in zip(("plain", "cut"), others, theirs, strict=True):
            loss_difference = abs(loss - other_loss) / abs(other_loss)
            grad_difference = float((grad - other_grad).norm() / other_grad.norm())
            worst = max(worst, loss_difference)
            each = sorted(their_s / my_s for my_s, their_s in zip(mine, times, strict=True))
            key = preset if who == "plain" else f"{preset}_{who}"
            ratios[f"cost_ratio_{key}"] = round(statistics.median(each), 3)
            print(
                f"{preset:10} {statistics.median(mine):8.3f} {who:5} {statistics.median(times):8.3f} "
                f"{statistics.median(each):6.2f} {each[0]:6.2f}-{each[-1]:5.2f} "
                f"{loss_difference:10.1e} {grad_difference:10.1e}"
            )
    both = [
        ours("pretrained", name, cnn, photo, style, point, style_loss=loss) for loss in ("gram", "wasserstein")
    ]
    for step in both:
        step()
    pairs = [tuple(cpu_seconds(step) for step in both) for _ in range(arguments.rounds)]
    each = sorted(wasserstein / gram for gram, wasserstein in pairs)
    gram, wasserstein = (statistics.median(column) for column in zip(*pairs, strict=True))
    cost = statistics.median(each)
    print(
        f"\nthe default preset, {arguments.side} px: {wasserstein:.3f} s with the Wasserstein loss, {gram:.3f} "
        f"s with Gram matrices, ratio {cost:.2f} ({each[0]:.2f}-{each[-1]:.2f})"
    )
    print(
        json.dumps(
            {
                "weights": weights_name(arguments.weights),
                "cost_ratio_wasserstein_to_gram": round(cost, 3),
                **ratios,
                "max_loss_difference": worst,
            }
        )
    )


if __name__ == "__main__":
    main()
