/** What a lane shows: executions as bars, which of them overlap (none, ever), and which one is under the pointer. */

export interface Execution {
  taskId: string;
  type: string;
  state: string;
  attempt: number;
  /** Fencing token, as text: it may be larger than a JavaScript number holds. */
  token: string;
  worker: string;
  startMs: number;
  /** Null while it runs. */
  endMs: number | null;
  /** Refused report of a zombie: its claim was lost before it spoke. */
  refused: boolean;
}

export interface Bar extends Execution {
  end: number;
  overlaps: boolean;
}

/** Bars by start; `overlaps` marks both sides of every overlap of executions that count (refused ones do not). */
export function bars(executions: readonly Execution[], nowMs: number): Bar[] {
  const sorted = executions
    .map((e): Bar => ({ ...e, end: Math.max(e.startMs, e.endMs ?? nowMs), overlaps: false }))
    .toSorted((a, b) => a.startMs - b.startMs || a.end - b.end);
  let latest: Bar | undefined;
  for (const bar of sorted) {
    if (bar.refused) continue;
    if (latest && bar.startMs < latest.end) {
      bar.overlaps = true;
      latest.overlaps = true;
    }
    if (!latest || bar.end > latest.end) latest = bar;
  }
  return sorted;
}

export function overlapCount(sorted: readonly Bar[]): number {
  return sorted.filter((bar) => bar.overlaps).length;
}

/**
 * Index of the bar under `time` (ms), or -1.  `slackMs` is what a few pixels are worth, so that thin bars can be hit;
 * bars must be sorted by start.  The one that begins last wins, as it is drawn on top.
 */
export function hit(sorted: readonly Bar[], time: number, slackMs: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]!.startMs <= time + slackMs) low = middle + 1;
    else high = middle;
  }
  for (let i = low - 1; i >= 0 && i >= low - 64; i--) {
    if (sorted[i]!.end + slackMs >= time) return i;
  }
  return -1;
}
