"""fsim: written by its own change."""
