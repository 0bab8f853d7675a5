"""Colours of the report, apart from the figures so that the page needs no plotting library to know them."""

from groundstation.core.tags import DETECTORS

#: Ink and paper. The page swaps these five for its dark theme, so nothing else may use the same values.
INK, MUTED, HAIRLINE, PAPER, FILL = "#1d2733", "#66717f", "#d9dfe6", "#fefefe", "#b3bfcb"
#: Okabe and Ito's colours for the colour-blind, a little nearer to each other in lightness.
DETECTOR_COLOURS = dict(zip(DETECTORS, ("#2a7fc1", "#d18e00", "#009e73", "#c8649b"), strict=True))
SKY, WARNING = "#4aa3df", "#d55e00"
