"""The version of the package, alone in a file so that the build and light entry points can read it."""

__version__ = "0.1.0"
