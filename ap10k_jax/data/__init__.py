"""Training and test crops from a built data set."""
