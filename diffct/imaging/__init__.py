"""Medical images on disk and in memory: formats, geometry, physical values."""
