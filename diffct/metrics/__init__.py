"""Metrics of images and volumes."""
