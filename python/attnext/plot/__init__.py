"""What does attention look at? Pictures of its weights, each returned as a matplotlib figure."""

try:
    import matplotlib  # noqa: F401  (only to say by name what is missing)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'attnext.plot needs matplotlib: pip install "attnext[plot]"', name=error.name
    ) from error

from .curves import entropy_curve, key_mass_curve
from .image import image_view
from .matrices import alignment_view, head_view, heatmap

__all__ = [
    "alignment_view",
    "entropy_curve",
    "head_view",
    "heatmap",
    "image_view",
    "key_mass_curve",
]
