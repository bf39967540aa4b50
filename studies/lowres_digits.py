"""The study of low-resolution attacks on digits: 0 to 4 are private, 5 to 9 public; a real world without a download.

About ten minutes of one core: lightleak study studies/lowres_digits.py --here 2
"""

from lightleak.study.lowres import LowRes


def tasks():
    """Target by target."""
    return LowRes("digits").tasks()
