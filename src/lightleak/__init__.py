"""Lightleak: how much of its training images does a vision model give away, and how do we close the leak?"""

from lightleak import compat

__version__ = "0.1.0"
__all__ = ["compat"]
