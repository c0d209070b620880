"""cnr: written by its own change."""
