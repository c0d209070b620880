"""Helpers of every package: files, JSON, threads, timing, progress, terminal text, checks of arguments.

Nothing in it knows of images, tiles or runs.
"""
