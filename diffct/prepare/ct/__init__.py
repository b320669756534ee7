"""Scans of CT as a data set: read, checked, divided by patient and written in one format."""
