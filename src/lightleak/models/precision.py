"""Where `lightleak.place` had its precision before; it goes with the next release."""

from lightleak.renamed import former

__getattr__ = former(__name__, {name: f"lightleak.place:{name}" for name in ("Precision", "lowered")})
