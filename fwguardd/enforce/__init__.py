"""Deciding what the kernel should hold, and carrying it out."""
