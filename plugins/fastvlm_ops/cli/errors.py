"""What ends a command early, with a message for the person at the command line."""


class CommandError(Exception):
    """A command cannot do its work; the message says why, and what to do."""
