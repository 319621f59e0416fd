"""pincaption: makes pins and products findable. The command line is `captioner`."""

from .common.version import __version__

__all__ = ["__version__"]
