"""Validation of a catalogue's predictions against true values."""
