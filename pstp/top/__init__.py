"""`pstp top`: the numbers of Prometheus, live in a terminal, straight from the processes."""

from pstp.top.run import once, run

__all__ = ["once", "run"]
