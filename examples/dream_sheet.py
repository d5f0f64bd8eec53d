"""DeepDream's options side by side, each on two photographs, with the embedded network.

    python -m examples.dream_sheet dreams.png        # from the repository; a minute or two on one core

The photographs are scikit-image's (`pip install 'nst[demo]'`); the guide is rendered here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.contact_sheet import PHOTOS, photograph, sheet, stylized
from nst.deepdream.method import DeepDream
from nst.features import read_state_dict
from nst.features.weights import published_bytes
from nst.images.codec import picture_tensor
from nst.synthetic import hatching, voronoi_mosaic

GUIDES = {"hatching": hatching, "mosaic": voronoi_mosaic}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "plain (layers = relu5_1)": {},
    "layers = relu4_3": {"layers": {"relu4_3": 1.0}},
    "layers = relu5_2": {"layers": {"relu5_2": 1.0}},
    "layers = relu3_2": {"layers": {"relu3_2": 1.0}},
    "layers = relu3_1": {"layers": {"relu3_1": 1.0}},
    "layers = relu3_1:5, one channel": {"layers": {"relu3_1:5": 1.0}},
    "guide = hatching, relu3_1": {"guide": "hatching", "layers": {"relu3_1": 1.0}},
    "guide = mosaic, relu3_1": {"guide": "mosaic", "layers": {"relu3_1": 1.0}},
    "octaves = 1": {"octaves": 1, "steps": 30},
    "gradient_blur_px = 1.5": {"gradient_blur_px": 1.5},
    "relu_backward = guided": {"relu_backward": "guided"},
    "relu_backward = deconv": {"relu_backward": "deconv"},
    "zoom_frames = 6, zoom = 1.1: the last": {"zoom_frames": 6, "zoom": 1.1, "steps": 5},
}


def main(target: Path) -> None:
    torch.set_num_threads(1)
    state = read_state_dict(published_bytes("nst:embedded"))
    guides = {name: picture_tensor(draw((184, 184), seed=0)) for name, draw in GUIDES.items()}
    photos = [photograph(name) for name in PHOTOS]
    tiles = [("photograph", photos), *(("guide: " + name, [guide]) for name, guide in guides.items())]
    for label, options in OPTIONS.items():
        tiles.append((label, list(dreamed(photos, guides, state, options))))
        print(label, flush=True)
    sheet(tiles, [(photo.shape[1], photo.shape[2]) for photo in photos]).save(target, quality=82)


def dreamed(
    photos: list[Tensor], guides: Mapping[str, Tensor], state: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterator[Tensor]:
    method = DeepDream(**{"network": "embedded", "octaves": 3, "steps": 12, "gradient_blur_px": 0.7, **options})
    guide = None if method.guide is None else guides[method.guide]
    stylizer = method.build_from(state, torch.device("cpu"), guide=guide)
    return (each.frames[-1].image if each.frames else each.image for each in stylized(stylizer, photos))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
