"""How the clock searches say no: a wrong clock given as sure ruins a pass in silence, a refusal costs a minute."""


class ClockRefused(ValueError):
    """The evidence does not single out one clock, so none is given; the text says what was found and needed."""
