"""The configs of the paper's tracks; `base.py` documents every field."""
