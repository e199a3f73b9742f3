"""`pstp verify`: checks a history in `task-events` against the promise, offline and without believing the scheduler.

| point | checked by |
|---|---|
| G1 one at a time | steps in the log; the workers' own clocks; handlers' journals; a group lives in one partition |
| G2 order | sequences, places in `tasks`, fencing tokens |
| G3 nothing lost | one end per task; every record of `tasks` is answered once |
| G4 few repeats | each repeat has a reason that permits it, and a kill where the kills are known |
| G6 progress | the longest stall, a violation above a bound if one is set |
| G7 one truth | every record can be read; handlers' journals tell the same times |
| G8 group state | one update per success, with it and before the next start |

G5 (no collateral) is a matter of latencies, which a history alone cannot judge.
"""

from pstp.verify.findings import Findings, Guarantee, Kill, Place, Violation
from pstp.verify.history import History
from pstp.verify.report import Report
from pstp.verify.run import check_cluster, check_dump, run
from pstp.verify.shared import Options

__all__ = [
    "Findings",
    "Guarantee",
    "History",
    "Kill",
    "Options",
    "Place",
    "Report",
    "Violation",
    "check_cluster",
    "check_dump",
    "run",
]
