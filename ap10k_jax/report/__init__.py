"""Documents and plots of which reports are made."""
