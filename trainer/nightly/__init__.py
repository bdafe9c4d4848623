"""The nightly loop: events in, a better model out, or none."""
