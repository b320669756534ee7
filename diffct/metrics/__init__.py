"""Measures on images with physical units."""
