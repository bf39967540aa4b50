"""The former name of `lightleak.study.gradient_shares`; it goes with the next release."""

from lightleak.renamed import former

__getattr__ = former(__name__, {"Shares": "lightleak.study.gradient_shares:GradientShares"})
