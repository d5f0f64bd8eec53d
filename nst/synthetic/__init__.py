"""Pictures that the project renders itself, from a seed. NumPy and Pillow only."""

from nst.synthetic.strokes import brush_strokes
from nst.synthetic.textures import TEXTURES, dead_leaves, fractal, hatching, noise, voronoi_mosaic

__all__ = ["TEXTURES", "brush_strokes", "dead_leaves", "fractal", "hatching", "noise", "voronoi_mosaic"]
