"""The version of this package. pyproject.toml and `pincaption.__version__` read it from here."""

__version__ = "0.1.0"
