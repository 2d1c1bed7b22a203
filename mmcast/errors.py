"""Errors that a user can cure: the message is one readable line that names the file and what to do."""


class CASTError(Exception):
    """A mistake in a config, path, checkpoint or data set; command lines print it and exit with status 1."""
