"""The command ``mmcast``; a module for each subcommand."""
