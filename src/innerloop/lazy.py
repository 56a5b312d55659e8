"""Packages whose names are imported when they are first used, so that what needs no JAX does not wait for it."""

import importlib
from collections.abc import Callable


def lazily(package: str, names: dict[str, tuple[str, ...]]) -> Callable[[str], object]:
    """The `__getattr__` of `package`, whose public `names` come from the modules that they are listed under."""
    module_of = {name: module for module, several in names.items() for name in several}

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package} has no attribute {name!r}")
        module = importlib.import_module(module_of[name])
        return module if module_of[name] == f"{package}.{name}" else getattr(module, name)

    return get
