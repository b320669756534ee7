"""The subcommands of `diffct`."""
