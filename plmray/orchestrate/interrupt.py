"""Being stopped by the user."""


class Interrupted(Exception):
    """The user stopped the sweep; what was finished is safe."""
