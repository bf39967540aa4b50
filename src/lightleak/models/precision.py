"""Where `lightleak.place` had its precision before; kept for those who import it from here."""

from lightleak.place import Precision, lowered

__all__ = ["Precision", "lowered"]
