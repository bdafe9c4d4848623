"""Indexes of the items by inner product: the exact one, and faster ones that are measured before they are trusted."""
