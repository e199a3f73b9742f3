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

/** What the lane looked like at `untilMs`: later executions had not begun, and what ended later still ran. */
export function asOf(executions: readonly Execution[], untilMs: number): Execution[] {
  return executions
    .filter((e) => e.startMs <= untilMs)
    .map((e) => (e.endMs !== null && e.endMs > untilMs ? { ...e, state: "running", endMs: null, refused: false } : e));
}

/**
 * Executions known so far with a page of them put in, each as the page says it, oldest first.  If the page begins behind
 * all that is known, something between may be missing: then what was known before is dropped.
 */
export function joinPages(known: readonly Execution[], page: readonly Execution[]): Execution[] {
  const tokens = new Set(page.map((e) => e.token));
  const first = page[0]?.token;
  if (first === undefined) return [...known];
  const kept = known.filter((e) => !tokens.has(e.token));
  const older = kept.filter((e) => before(e.token, first));
  const newer = kept.filter((e) => !before(e.token, first));
  const touches = kept.length < known.length || newer.length > 0;
  return [...(touches ? older : []), ...page, ...newer];
}

/** Whether a token was given out earlier; they are whole numbers that JavaScript's may not hold. */
function before(a: string, b: string): boolean {
  return a.length !== b.length ? a.length < b.length : a < b;
}

/** How idle a lane must be to be folded: as long as its usual task takes, so that the work fills the picture. */
export function idleMsOf(shown: readonly Bar[]): number {
  const took = shown.map((bar) => bar.end - bar.startMs).sort((a, b) => a - b);
  return Math.max(20, took[took.length >> 1] ?? 0);
}

/** Which bars a window shows that holds `size` of them and ends before index `end`: [first, last), always within. */
export function windowOf(total: number, size: number, end: number): [number, number] {
  const many = Math.max(1, Math.min(total, size));
  const last = Math.max(Math.min(many, total), Math.min(total, end));
  return [Math.max(0, last - many), last];
}
