"""The decoder against code that we did not write: transformers' GPT2Model between the linear maps of Garg et al."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import CausalDecoder

torch = pytest.importorskip("torch", reason="needs the extra parity: torch is not installed")
transformers = pytest.importorskip(
    "transformers", reason="needs the extra parity: transformers is not installed"
)

DIM, POINTS, LAYERS, WIDTH, HEADS = 3, 5, 2, 16, 4


class Garg(torch.nn.Module):
    """The public model: read in, GPT-2 without its token embedding, read out."""

    def __init__(self):
        super().__init__()
        config = transformers.GPT2Config(
            n_positions=2 * POINTS,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            vocab_size=7,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
        self._read_in = torch.nn.Linear(DIM, WIDTH)
        self._backbone = transformers.GPT2Model(config)
        self._read_out = torch.nn.Linear(WIDTH, 1)

    def forward(self, xs, ys):
        labels = torch.cat([ys[..., None], torch.zeros_like(xs[..., 1:])], -1)
        tokens = torch.stack([xs, labels], 2).reshape(len(xs), -1, DIM)
        hidden = self._backbone(inputs_embeds=self._read_in(tokens)).last_hidden_state
        return self._read_out(hidden)[:, ::2, 0]


def make(dtype, rng) -> Garg:
    """Far enough from its start that every parameter matters."""
    model = Garg().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.tensor(0.2 * rng.normal(size=tuple(parameter.shape)), dtype=dtype))
    return model


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_outputs_and_gradients_are_those_of_gpt2(precision, tolerance, rng):
    theirs = make(getattr(torch, precision), rng)
    xs, ys = rng.normal(size=(4, POINTS, DIM)), rng.normal(size=(4, POINTS))
    target = torch.tensor(ys, dtype=getattr(torch, precision))
    outputs = theirs(torch.tensor(xs, dtype=target.dtype), target)
    ((outputs - target) ** 2).mean().backward()
    gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}

    with jax.enable_x64(precision == "float64"):
        ours = CausalDecoder.from_garg(theirs.state_dict(), heads=HEADS)
        x, y = jnp.asarray(xs, precision), jnp.asarray(ys, precision)
        found, back = eqx.filter_jit(
            lambda model: (model(x, y), jax.grad(lambda m: jnp.square(m(x, y) - y).mean())(model))
        )(ours)
        _close(found, outputs.detach().numpy(), tolerance)
        exported = back.to_garg()  # a gradient has its model's shape, so the same names
    assert set(gradients) == set(exported)
    for name, gradient in gradients.items():
        _close(exported[name], gradient, tolerance, name)


def test_exported_weights_are_theirs(rng):
    ours = CausalDecoder(DIM, POINTS, LAYERS, width=WIDTH, heads=HEADS, key=jax.random.key(0, impl="rbg"))
    theirs = Garg()
    state = {name: torch.tensor(array) for name, array in ours.to_garg().items()}
    loaded = theirs.load_state_dict(state, strict=False)
    assert loaded.missing_keys == ["_backbone.wte.weight"] and not loaded.unexpected_keys
    xs, ys = rng.normal(size=(4, POINTS, DIM)).astype("f"), rng.normal(size=(4, POINTS)).astype("f")
    _close(
        ours(jnp.asarray(xs), jnp.asarray(ys)),
        theirs(torch.tensor(xs), torch.tensor(ys)).detach().numpy(),
        1e-4,
    )


def _close(found, expected, tolerance, name=""):
    """Equal to `tolerance` of the largest entry: a key's bias has gradient zero but for rounding."""
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-2), err_msg=name
    )
