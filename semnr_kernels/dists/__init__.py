"""dists: written by its own change."""
