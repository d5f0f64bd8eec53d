"""Pictures that the project renders itself, from a seed. NumPy and Pillow only."""

from nst.pictures.strokes import brush_strokes

__all__ = ["brush_strokes"]
