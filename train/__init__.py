"""The training scripts, one per stage, and their configurations."""

from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
"""Folder of the configurations, `<system>/<stage>.yaml`."""
