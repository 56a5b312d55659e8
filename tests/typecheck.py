"""The run-time checker of annotations; `conftest.py` hangs it on every function of the package."""

from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype

check = beartype(
    conf=BeartypeConf(
        # As for every static checker (PEP 484), an int may stand where a float is annotated: Uniform(0, 5).
        is_pep484_tower=True,
        # Functions are checked one by one, so beartype cannot know the class that Self stands for.
        hint_overrides=FrozenDict({Self: object}),
    )
)
