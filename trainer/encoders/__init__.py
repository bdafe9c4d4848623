"""From a catalogue's words and pictures to feature files, and the encoders that do it."""
