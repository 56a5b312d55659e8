"""A command whose help ends with examples: the lines under "Examples:" in its docstring, as they stand."""

import inspect
from typing import Any

from typer.core import TyperCommand

_MARK = "\nExamples:\n"


class Explained(TyperCommand):
    """`examples` are command lines, each with what it is for after a #, if that needs to be said."""

    def __init__(self, *args: Any, help: str | None = None, **more: Any):
        text, _, lines = inspect.cleandoc(help or "").partition(_MARK)
        super().__init__(*args, help=text, **more)
        self.examples = [line.strip() for line in lines.splitlines() if line.strip()]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        if not self.examples:
            return
        if formatter.getvalue():  # Typer without Rich
            formatter.write("".join(f"{line}\n" for line in ["", "Examples:", *self._indented()]))
            return
        from rich.console import Console
        from rich.text import Text

        text = Text("\n".join(["", "Examples:", *self._indented()]) + "\n")
        text.highlight_regex(r"\nExamples:", "bold")
        text.highlight_regex(r"(?<= )#.*", "dim")
        Console().print(text, soft_wrap=True)  # to be copied: no line is broken

    def _indented(self) -> list[str]:
        parts = [line.partition("#") for line in self.examples]
        width = max((len(command.strip()) for command, _, why in parts if why), default=0)
        return [
            f"  {command.strip():{width}}  # {why.strip()}" if why else f"  {command.strip()}"
            for command, _, why in parts
        ]
