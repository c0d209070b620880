"""ssim: written by its own change."""
