"""What is said of a user's mistake. By itself, so that what needs no JAX can say it too."""


class SpecError(ValueError):
    """A spec or an address is wrong; the message names each field, its value and what is allowed, one a line."""
