"""A simulated shop over some days, to see the whole loop at work: the service by day, the nightly job by night."""
