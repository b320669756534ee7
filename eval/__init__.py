"""The evaluation of pipelines and of samples."""
