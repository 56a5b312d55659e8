"""The command line as from a shell, in this process."""

import contextlib
import io
import json
import sys
from typing import NamedTuple

import pytest

from innerloop import cli


class Result(NamedTuple):
    code: int
    out: str
    err: str


def innerloop(*arguments: object) -> Result:
    """The command line's `main` in this process, as from a shell."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["innerloop", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        patch.setenv("NO_COLOR", "1")
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
    return Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def one_object(result: Result) -> dict:
    """Standard output as exactly one JSON object, without NaN, which JSON does not know."""
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1 and result.out.endswith("}\n")
    return json.loads(result.out, parse_constant=pytest.fail)
