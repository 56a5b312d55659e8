"""Measures the causal decoder, and writes docs/results/decoder.parquet and docs/results/decoder.md.

    pip install -e ".[parity]"
    python benchmarks/decoder.py                      # everything, about ten minutes on two cores
    python benchmarks/decoder.py --only softmax       # one group; the others' rows stay as they are

A training step is the gradient of the loss of 64 prompts of 10 points and an update of Adam, 6 layers, 256 wide, float32.
Each side trains as it does: this package scans over the steps of a reporting interval in one compiled program, PyTorch goes
step by step. They take turns of a few steps in one process, on the same cores, and the medians of their turns are compared.
"""

import time
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from results import record, row

import innerloop as il
from innerloop.models.mixers import linear_attention, softmax_attention

DIM, POINTS, WIDTH, HEADS, LAYERS, BATCH = 5, 10, 256, 4, 6, 64
STEPS, ROUNDS = 4, 10  # steps a turn, turns


class PublicBlock(torch.nn.Module):
    """A layer of linear attention as the public code forms it: the outer products of all tokens, summed by cumsum."""

    def __init__(self):
        super().__init__()
        self.norm_mix, self.norm_mlp = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.qkv, self.mixed = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.expand, self.contract = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, h):
        batch, tokens, _ = h.shape
        qkv = self.qkv(self.norm_mix(h)).reshape(batch, tokens, 3, HEADS, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (batch, heads, tokens, head_dim) each
        q, k = (torch.relu(z / (WIDTH // HEADS) ** 0.5) ** 2 + 1e-6 for z in (q, k))
        memory = (k[..., :, None] * v[..., None, :]).cumsum(2)  # (batch, heads, tokens, head_dim, head_dim)
        above = (q[..., None, :] @ memory)[..., 0, :]
        below = (q * k.cumsum(2)).sum(-1, keepdim=True).clamp(min=1e-6)
        h = h + self.mixed((above / below).transpose(1, 2).reshape(batch, tokens, WIDTH))
        return h + self.contract(torch.nn.functional.gelu(self.expand(self.norm_mlp(h))))


class Peer(torch.nn.Module):
    """Tokens read in and out as in Garg et al.'s code, with GPT-2 or the public linear layers between."""

    def __init__(self, linear: bool):
        super().__init__()
        self.read_in, self.read_out = torch.nn.Linear(DIM, WIDTH), torch.nn.Linear(WIDTH, 1)
        self.linear = linear
        if linear:
            self.positions = torch.nn.Embedding(2 * POINTS, WIDTH)
            self.layers = torch.nn.Sequential(*(PublicBlock() for _ in range(LAYERS)))
        else:
            config = transformers.GPT2Config(
                n_positions=2 * POINTS,
                n_embd=WIDTH,
                n_layer=LAYERS,
                n_head=HEADS,
                vocab_size=1,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                use_cache=False,
            )
            self.backbone = transformers.GPT2Model(config)

    def forward(self, xs, ys):
        labels = torch.cat([ys[..., None], torch.zeros_like(xs[..., 1:])], -1)
        h = self.read_in(torch.stack([xs, labels], 2).reshape(len(xs), -1, DIM))
        return self.read_out(self.between(h))[:, ::2, 0]

    def between(self, h):
        if self.linear:
            return self.layers(h + self.positions.weight)
        return self.backbone(inputs_embeds=h).last_hidden_state


def throughput(mixer: str) -> list[dict]:
    """Training steps a second beside PyTorch's."""
    ours, theirs = _our_steps(mixer), _their_steps(linear=mixer == "linear")
    ours()  # compiled
    theirs()
    times = np.array([[_seconds(ours), _seconds(theirs)] for _ in range(ROUNDS)])
    mine, peer = np.median(times, axis=0)
    name, bar = (
        ("transformers' GPT-2", ">= 0.95")
        if mixer == "softmax"
        else ("outer products of every token and their cumsum", ">= 9")
    )
    spread = np.std(np.log(times[:, 1] / times[:, 0])) / np.sqrt(ROUNDS)
    speeds = f"{STEPS / mine:.2f} against {STEPS / peer:.2f} steps a second"
    note = f"{speeds}; torch {torch.__version__}, {torch.get_num_threads()} threads"
    return [
        row(
            mixer,
            f"training throughput / that of {name}",
            bar,
            peer / mine,
            error=spread * peer / mine,
            note=note,
        )
    ]


def memory() -> list[dict]:
    """Memory that a mixer's gradient needs beside its arguments, as the compiler plans it, at 4096 points over 1024."""
    rows = []
    for name, mixer, bar in [
        ("linear", linear_attention, "<= 4.4"),
        ("softmax, float32", softmax_attention, "shown: no fused path"),
    ]:
        sizes = {points: _planned(mixer, points) for points in (1024, 4096)}
        note = ", ".join(f"{points} points: {size / 2**20:.0f} MiB" for points, size in sizes.items())
        rows.append(row("memory", f"{name}: 4096 points / 1024", bar, sizes[4096] / sizes[1024], note=note))
    return rows


def _planned(mixer: Callable, points: int) -> int:
    shape = jax.ShapeDtypeStruct((1, 2 * points, HEADS, WIDTH // HEADS), jnp.float32)
    gradient = jax.grad(lambda q, k, v: mixer(q, k, v).sum(), argnums=(0, 1, 2))
    plan = jax.jit(gradient).lower(shape, shape, shape).compile().memory_analysis()
    assert plan is not None
    return plan.temp_size_in_bytes


def _seconds(steps: Callable[[], object]) -> float:
    began = time.perf_counter()
    steps()
    return time.perf_counter() - began


def _our_steps(mixer: str) -> Callable[[], None]:
    own = {} if mixer == "softmax" else {"activation": "gelu", "final_layer_norm": False, "init": "torch"}
    model = il.CausalDecoder(DIM, POINTS, LAYERS, mixers=mixer, **own, key=jax.random.key(0, impl="rbg"))
    optimizer = optax.adam(1e-4)
    xs, ys = (jnp.asarray(array) for array in _prompts())

    def update(carry, _):
        model, state = carry
        gradient = jax.grad(lambda model: jnp.square(model(xs, ys) - ys).mean())(model)
        updates, state = optimizer.update(gradient, state)
        return (eqx.apply_updates(model, updates), state), None

    @partial(jax.jit, donate_argnums=0)
    def interval(carry):
        return jax.lax.scan(update, carry, length=STEPS)[0]

    kept = [(model, optimizer.init(eqx.filter(model, eqx.is_array)))]

    def steps() -> None:
        kept[0] = jax.block_until_ready(interval(kept[0]))

    return steps


def _their_steps(linear: bool) -> Callable[[], None]:
    model = Peer(linear)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    xs, ys = (torch.tensor(array) for array in _prompts())

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            ((model(xs, ys) - ys) ** 2).mean().backward()
            optimizer.step()

    return steps


def _prompts() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(BATCH, POINTS, DIM)).astype(np.float32)
    return xs, np.einsum("bpd,bd->bp", xs, rng.normal(size=(BATCH, DIM)).astype(np.float32))


if __name__ == "__main__":
    groups = {
        "softmax": partial(throughput, "softmax"),
        "linear": partial(throughput, "linear"),
        "memory": memory,
    }
    record("decoder", "The causal decoder", groups, __doc__)
