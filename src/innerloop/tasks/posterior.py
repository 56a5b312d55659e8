"""What the data say about the weights: the ridge solution for a known noise level, and the Bayes average over levels.

This is the one place where posteriors are computed. With prior w ~ N(0, C), C = R R^T, substitute w = R u, so that
u ~ N(0, I) and the data's Gram matrix becomes R^T Sigma R = V diag(lam) V^T, with a = V^T R^T alpha. Then, for every
context length n, with r = min(n, dim) eigenvalues that are not zero by rank,

    w_sigma = R V (a / (lam + sigma^2))
    -2 log p(y | X, sigma) = sum_{k<=r} log(lam_k + sigma^2) + (n - r) log sigma^2 + rss / sigma^2
                             + sum_{k<=r} (a_k^2 / lam_k) / (lam_k + sigma^2) + const,   rss = y^T y - sum a_k^2 / lam_k

which is the evidence of Bayesian linear regression written in the n x n kernel's eigenvalues.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.tasks.noise import NoiseLaw
from innerloop.types import AnyArray, Moments


class Posterior(eqx.Module):
    """The posterior of the weights given one context. `jax.vmap` batches it.

    Attributes:
        eigenvalues: lam, shape `(dim,)`, ascending; exactly zero where the data span nothing.
        basis: R V, shape `(dim, dim)`: columns are eigenvectors, mapped back to weights.
        projections: a, shape `(dim,)`.
        metric: maps the eigenbasis to the query's norm, shape `(dim, dim)`; None when that is a rotation.
        rss: residual sum of squares of least squares.
        n: context length.
        noise: the law of sigma.
    """

    eigenvalues: Float[Array, "dim"]
    basis: Float[Array, "dim dim"]
    projections: Float[Array, "dim"]
    metric: Float[Array, "dim dim"] | None
    rss: Float[Array, ""]
    n: int = eqx.field(static=True)
    noise: NoiseLaw = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        moments: Moments,
        noise: NoiseLaw,
        *,
        prior_root: Float[Array, "dim dim"] | None = None,
        query_root: Float[Array, "dim dim"] | None = None,
    ) -> "Posterior":
        """The posterior given one context's `moments`, under `noise`, the prior N(0, R R^T) with R = `prior_root`, and
        queries with covariance Q Q^T, Q = `query_root`; None stands for the identity."""
        gram, correlation = moments.gram, moments.correlation
        if prior_root is not None:
            gram = prior_root.T @ gram @ prior_root
            correlation = prior_root.T @ correlation
        eigenvalues, vectors = jnp.linalg.eigh(gram)
        projections = vectors.T @ correlation
        dim = moments.dim
        # eigh sorts upwards, so the last min(n, dim) directions are those that data span; below rounding is zero too.
        rounding = dim * jnp.finfo(gram.dtype).eps * eigenvalues[-1]
        spanned = (jnp.arange(dim) >= dim - moments.n) & (eigenvalues > rounding)
        explained = jnp.where(spanned, projections**2 / jnp.where(spanned, eigenvalues, 1), 0).sum()
        rss = moments.label_energy - explained if moments.n > dim else jnp.zeros_like(explained)
        basis = vectors if prior_root is None else prior_root @ vectors
        metric = None if prior_root is None else basis
        if query_root is not None:
            metric = query_root.T @ basis
        return cls(
            eigenvalues=jnp.where(spanned, eigenvalues, 0),
            basis=basis,
            projections=jnp.where(spanned, projections, 0),
            metric=metric,
            rss=jnp.maximum(rss, 0),
            n=moments.n,
            noise=noise,
        )

    def ridge(self, sigma: Float[AnyArray, ""]) -> Float[Array, "dim"]:
        """w_sigma = E[w | X, y, sigma], the ridge solution; at sigma = 0 least squares of least prior norm."""
        return self.basis @ self._coefficients(sigma[None] ** 2)[0]

    def noise_levels(self) -> tuple[Float[Array, "m"], Float[Array, "m"]]:
        """Levels of sigma and their posterior probabilities; an integral over the law is a sum over them."""
        points, weights = nodes(self.noise, self.n)
        dtype = self.rss.dtype
        levels = jnp.asarray(points, dtype)
        if len(points) == 1:
            return levels, jnp.ones(1, dtype)
        variance = jnp.maximum(levels**2, smallest_variance(self.eigenvalues.mean()))
        spanned = (self.eigenvalues > 0)[None, :]
        lam = jnp.where(spanned, self.eigenvalues[None, :], 1)
        total = jnp.where(spanned, lam + variance[:, None], 1)  # (m, dim)
        minus_two_log = (
            jnp.log(total).sum(-1)
            + (self.n - min(self.n, self.eigenvalues.shape[0])) * jnp.log(variance)
            + self.rss / variance
            + (self.projections[None, :] ** 2 / (lam * total)).sum(-1)
        )
        return levels, jax.nn.softmax(jnp.log(jnp.asarray(weights, dtype)) - minus_two_log / 2)

    def mean_and_spread(self) -> tuple[Float[Array, "dim"], Float[Array, ""]]:
        """w_bayes = E[w | X, y], and half the posterior variance of w_sigma, `1/2 E[ ||w_sigma - w_bayes||^2 | X, y]`.

        The spread's expectation over sequences is the Bayes floor; its norm is that of the query's covariance.
        """
        levels, probability = self.noise_levels()
        coefficients = self._coefficients(levels**2)  # (m, dim)
        mean = probability @ coefficients
        deviation = coefficients - mean[None, :]
        if self.metric is not None:
            deviation = deviation @ self.metric.T
        return self.basis @ mean, 0.5 * (probability @ (deviation**2).sum(-1))

    def oracle_loss(self, sigma: Float[AnyArray, ""] | None = None) -> Float[Array, ""]:
        """`1/2 E[ ||w - w_sigma||^2 | X, y ]`: what is left to lose when sigma is known, in the query's norm.

        At the level `sigma`, or in the mean over what the data say of it.
        """
        if sigma is None:
            levels, probability = self.noise_levels()
        else:
            levels, probability = sigma[None], jnp.ones_like(sigma)[None]
        variance = (levels**2)[:, None]
        lam = self.eigenvalues[None, :]
        # Given sigma the k-th coordinate has variance sigma^2 / (lam_k + sigma^2): one where nothing was seen.
        unseen = lam == 0
        left = jnp.where(unseen, 1, variance / jnp.where(unseen, 1, lam + variance))
        length = jnp.ones_like(self.eigenvalues) if self.metric is None else (self.metric**2).sum(0)
        return 0.5 * (probability @ (left @ length))

    def _coefficients(self, variance: Float[Array, "m"]) -> Float[Array, "m dim"]:
        """a / (lam + variance) in the eigenbasis, zero where the data span nothing."""
        spanned = (self.eigenvalues > 0)[None, :]
        total = jnp.where(spanned, self.eigenvalues[None, :] + variance[:, None], 1)
        return jnp.where(spanned, self.projections[None, :] / total, 0)


def nodes(noise: NoiseLaw, n: int):
    """Levels of sigma and their weights under its law, as many as the posterior after n examples needs."""
    # Near its peak the likelihood of sigma is about sigma / sqrt(2 n) wide; the nodes must resolve that.
    return noise.quadrature(min(256, 24 + int(6 * n**0.5)))


def smallest_variance(mean_eigenvalue: Float[Array, "*lanes"]) -> Float[Array, "*lanes"]:
    """A level of zero would make exact data infinitely likely; rounding decides what counts as exact."""
    return jnp.finfo(mean_eigenvalue.dtype).eps * (mean_eigenvalue + 1)
