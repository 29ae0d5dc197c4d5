"""Measures of quality: of labels, of the float original's answers, of each output by what it is."""
