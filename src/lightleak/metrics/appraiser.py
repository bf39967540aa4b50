"""The former name of `lightleak.metrics.attribute_regressor`; it goes with the next release."""

from lightleak.renamed import former

NOW = "lightleak.metrics.attribute_regressor"
__getattr__ = former(
    __name__,
    {
        "Appraiser": f"{NOW}:AttributeRegressor",
        "appraise": f"{NOW}:estimate",
        "fit_appraiser": f"{NOW}:fit_attribute_regressor",
        **{name: f"{NOW}:{name}" for name in ("Fit", "Quality", "load", "quality", "save")},
    },
)
