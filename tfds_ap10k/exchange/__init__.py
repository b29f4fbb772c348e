"""Annotations to and from CVAT, Label Studio and other tools."""
