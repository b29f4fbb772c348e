"""Counts, figures and examples of a data set."""
