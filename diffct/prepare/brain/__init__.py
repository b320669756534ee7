"""Slices of brains, T1w beside FLAIR and other contrasts."""
