"""Recordings: small immutable segments while they grow, one sealed Photon-HDF5 file afterwards.

`manifest` starts a recording, `writer` publishes a stream's segments durably, `reader` follows or replays
them, `sealing` makes the archive, `copy` cuts a recording into other segment sizes.
"""
