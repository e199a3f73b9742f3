"""Chaos on the real thing: real processes, a real broker or a cluster of three, and everything that can go wrong."""
