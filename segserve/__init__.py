"""segserve: semantic segmentation as a service. What users type and import."""

__version__ = "0.1.0"
