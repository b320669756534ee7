"""Synthetic data to try everything on; no other room below the commands needs it."""
