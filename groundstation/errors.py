"""Every error of ours: one clear sentence that names the thing, what was found and what to do next."""


class GroundStationError(Exception):
    """Base of all errors that the software raises on purpose; its text is meant for the operator."""


class BadInput(GroundStationError):
    """What the user gave (file, option, key, element set) cannot be used; the command line exits with 2."""


class TransportTimeout(GroundStationError):
    """The far end of a link did not answer in time; the link must be resynchronised before it is reused."""


class TransportLost(GroundStationError):
    """The link is gone: unplugged, closed or refused."""


class WireError(GroundStationError):
    """The far end answered bytes that its protocol does not allow."""


class WrongInstrument(BadInput):
    """Something answered, but it is not the instrument that the configuration names."""


class InstrumentFault(GroundStationError):
    """The instrument is the right one and refuses or fails to do what it was told."""


class RecordingDamaged(GroundStationError):
    """Recorded bytes do not match their checksum; the damaged part is never presented as data."""


class SynchronisationRefused(GroundStationError):
    """The evidence does not single out one clock solution, so none is given."""
