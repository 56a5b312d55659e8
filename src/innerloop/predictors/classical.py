"""Estimators of one line."""

from innerloop.predictors.base import WeightPredictor


class Averaging(WeightPredictor):
    """`w = alpha / n = 1/n sum_i y_i x_i` (Garg et al. 2022).

    Given w, its mean is the input covariance times w: unbiased for isotropic inputs of variance one.
    """

    def _weights(self, moments):
        return moments.correlation / moments.n
