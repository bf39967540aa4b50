"""Lightleak: how much of its training images does a vision model give away, and how do we close the leak?"""

__version__ = "0.1.0"
