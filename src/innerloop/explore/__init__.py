"""A trained run as a page in the browser: `innerloop explore`. The server needs the extra `explore`, the numbers do not."""

from innerloop.explore.explorer import Explorer

__all__ = ["Explorer"]
