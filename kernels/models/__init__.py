"""Compiled code of the models; what every table needs lies above."""
