"""pincaption: makes pins and products findable. The command line is `captioner`."""

__version__ = "0.1.0"
