"""Preparation of brain scans: slices of T1w with FLAIR and other contrasts."""
