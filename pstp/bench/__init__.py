"""Measuring PSTP and its peers on the same work: `pstp bench`."""
