"""Domain-specific segmentation: train, predict, report."""

__version__ = "0.1.0"
