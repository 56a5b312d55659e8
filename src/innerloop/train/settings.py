"""How to train: the options of `fit`, which are the `train` section of a spec."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from innerloop.train.objectives import Objective

Optimizer = Literal["adam", "muon", "levenberg-marquardt", "spectral"]
SECOND_ORDER = ("levenberg-marquardt", "spectral")  # they choose their own steps

# Where the start is deeper, a trial without a layer has so many times fewer steps and sequences in each than the first
# training, and what goes on from the best of the trials so many times fewer steps.
TRIAL = (4, 8)
ONWARD = 2
_STEPS = {"adam": 6000, "muon": 6000, "levenberg-marquardt": 30, "spectral": 60}
_LEARNING_RATE = {"adam": 0.01, "muon": 0.02}


class Training(BaseModel):
    """Options of training. What is None takes the default that the docstring of the field names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    objective: Objective = Field(default="bayes", description="what is minimised: sampled, oracle or bayes")
    optimizer: Optimizer | None = Field(
        default=None,
        description="adam, muon, levenberg-marquardt or, for gd++ with isotropic Gaussian inputs, spectral, which solves "
        "it as a function of eigenvalues, whatever the objective; by default muon for full, levenberg-marquardt for others",
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        description="updates (adam 6000, muon 6000), or iterations a depth (levenberg-marquardt 30), a start (spectral 60)",
    )
    batch: int = Field(default=512, ge=1, strict=True, description="sequences an update of adam or muon")
    learning_rate: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="adam 0.01, muon 0.02"
    )
    temper: float | None = Field(
        default=1.0,
        gt=0,
        description="a sequence's loss above this many times that of predicting zero counts by its logarithm",
    )
    warm: bool = Field(
        default=True, description="levenberg-marquardt, spectral: reach the depth through all shallower ones"
    )
    start: Literal["random", "diag", "deeper"] = Field(
        default="random",
        description="adam, muon: from random values; or, for full, from diag of every depth up to the model's, solved by "
        "levenberg-marquardt, each going on for this many steps and the better of both being kept; or from full with one "
        "layer more, trained for as many steps: short trials on small batches say which of its layers it misses least, "
        "what is left goes on for half of the steps, and so down to one layer",
    )
    starts: int = Field(
        default=4,
        ge=1,
        le=100,
        description="levenberg-marquardt: cold starts at each depth, besides those from the depth before; spectral: 32 "
        "times as many",
    )
    sample: int = Field(
        default=4096,
        ge=16,
        description="levenberg-marquardt: sequences in a Jacobian",
    )
    tail: float = Field(
        default=1e-6,
        ge=1e-12,
        le=1e-2,
        allow_inf_nan=False,
        description="spectral: how many eigenvalues of a sequence, in the mean, are out of sight at either end",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="everything random follows from it")
    data_seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**31,
        description="adam, muon: of the stream of sequences; by default the seed",
    )
    guard: float = Field(
        default=0.02,
        ge=0,
        allow_inf_nan=False,
        description="adam, muon: weight of the loss on sequences just beyond the tail of the task's; 0 switches it off",
    )
    devices: int = Field(
        default=1, ge=1, strict=True, description="adam, muon: devices of this host that share each batch"
    )
    precision: Literal["float32", "float64"] | None = Field(
        default=None,
        description="float32 or float64; by default float64 for levenberg-marquardt, also where it only gives the start, "
        "and for spectral",
    )

    @model_validator(mode="after")
    def _devices_share_the_batch(self):
        if self.batch % self.devices:
            raise ValueError(
                f"batch must be a multiple of devices, got batch {self.batch}, devices {self.devices}"
            )
        return self

    @model_validator(mode="after")
    def _only_gradients_start_from_others(self):
        if self.start != "random" and self.optimizer in SECOND_ORDER:
            raise ValueError(f"start must be random for {self.optimizer}, got {self.start!r}")
        return self

    @model_validator(mode="after")
    def _second_order_has_no_learning_rate(self):
        if self.optimizer in SECOND_ORDER and self.learning_rate is not None:
            raise ValueError(f"learning_rate is for adam and muon; {self.optimizer} chooses its own steps")
        return self

    @property
    def has_chain(self) -> bool:
        """Whether a warm chain solves it, or what it starts from; of resolved options."""
        return self.optimizer == "levenberg-marquardt" or self.start == "diag"

    @property
    def trains_alone(self) -> bool:
        """Whether it has parts that no other run shares, however alike; of resolved options."""
        return self.has_chain or self.start == "deeper" or self.optimizer == "spectral"

    @property
    def passes_depths(self) -> bool:
        """Whether it yields a model of every depth up to the one asked for; of resolved options."""
        return self.start == "deeper" or ((self.has_chain or self.optimizer == "spectral") and self.warm)

    def resolved(self, kind: str) -> "Training":
        """The same with every default that depends on the model's kind or the optimiser filled in."""
        optimizer = self.optimizer or ("muon" if kind == "full" else "levenberg-marquardt")
        chosen = self.model_copy(update={"optimizer": optimizer})
        return chosen.model_copy(
            update={
                "steps": self.steps or _STEPS[optimizer],
                "learning_rate": self.learning_rate or _LEARNING_RATE.get(optimizer),
                "data_seed": self.seed if self.data_seed is None else self.data_seed,
                "precision": self.precision
                or ("float64" if chosen.has_chain or optimizer == "spectral" else "float32"),
            }
        )
