"""Conditions of a translation: its images, the scans they are cut from, and its ControlNets."""
