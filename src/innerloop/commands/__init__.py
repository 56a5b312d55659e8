"""The commands of the command line, a file for each group of them. `innerloop.cli` puts them together.

None imports JAX before it runs: help and completion wait for no more than Typer.
"""
