"""What every paper's command checks of its options."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from innerloop.refused import nearest
from innerloop.study import SpecError

Budget = TypeVar("Budget")


def budget_of(name: str, budgets: Mapping[str, Budget]) -> Budget:
    """The budget of this name.

    Raises:
        SpecError: there is none.
    """
    if name not in budgets:
        raise SpecError(f"--budget {name}: unknown budget{nearest(name, budgets)}")
    return budgets[name]


def outputs_of(only: Sequence[str], outputs: Iterable[str]) -> list[str]:
    """The outputs of these names, in the order of `outputs`; all of them if there is no name.

    Raises:
        SpecError: a name is unknown.
    """
    known = list(outputs)
    for name in only:
        if name not in known:
            raise SpecError(f"--only {name}: unknown output{nearest(name, known)}")
    return [name for name in known if name in only or not only]
