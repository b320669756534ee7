"""The subcommands of `diffct` that run a pipeline or look at scans."""
