"""What ends a command."""


class CommandError(Exception):
    """A command cannot go on; the message says why and what to do."""
