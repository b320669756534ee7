"""Pictures of images, of comparisons and of losses."""
