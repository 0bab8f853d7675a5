"""Instrument drivers: one file each, from the bytes on the wire to a capability of the station."""
