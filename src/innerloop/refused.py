"""Messages about what was refused: the field, what was given, and what is allowed, with the nearest name."""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import get_args

from pydantic import BaseModel, ValidationError


def describe(
    error: ValidationError, model: type[BaseModel], where: Callable[[tuple], str] = lambda loc: ""
) -> str:
    """A validation error in one line a field: its name, its value, what is allowed; `where` says the place of a field."""
    lines = []
    for problem in error.errors():
        path, at = [str(part) for part in problem["loc"]], where(problem["loc"])
        name = ".".join(path)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = _names(_model_at(model, path[:-1]))
            lines.append(f"{at}{name}: unknown key{nearest(path[-1], known)}")
        elif problem["type"] == "value_error":
            lines.append(f"{at}{name}: {message}" if name else f"{at}{message}")
        elif problem["type"] == "model_type":
            known = keys_of(_model_at(model, path))
            lines.append(
                f"{at}{name}: must be a mapping with some of the keys {known}, got {problem['input']!r}"
            )
        elif problem["type"] == "literal_error":
            allowed = problem.get("ctx", {})["expected"]
            near = _near(str(problem["input"]), re.findall(r"'([^']*)'", allowed))
            lines.append(f"{at}{name}: must be {allowed}, got {problem['input']!r}{near}")
        else:
            lines.append(f"{at}{name}: {message[0].lower()}{message[1:]}, got {problem['input']!r}")
    return "\n".join(lines)


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for part in path:
        if part not in model.model_fields:  # the index of a list's element
            continue
        annotation = model.model_fields[part].annotation
        annotation = next(iter(get_args(annotation)), annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the one that was meant, if it can be told, and all that there are."""
    known = list(known)
    near = _near(name, known)
    return f"{near or '.'} Allowed: {', '.join(known)}"


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def keys_of(model: type[BaseModel]) -> str:
    """The fields of a model, as a message lists them."""
    return ", ".join(_names(model))


def _names(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]
