"""Software of an optical ground station for satellite quantum key distribution."""

__version__ = "0.1.0"
