"""How good a catalogue's answers are, where the truth is known."""
