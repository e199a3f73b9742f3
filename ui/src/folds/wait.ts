/** The wait sentence: blocker → position → limiter → expected start.  Each part can be a link. */

import { ago, span, times } from "./words";

export interface Explanation {
  phase: string;
  head?: { taskId: string; type: string; state: string; attempt: number; worker: string; sinceMs: number } | null;
  parked: number;
  paused?: { actor: string; note: string; sinceMs: number } | null;
  blocked?: { reason: string; sinceMs: number } | null;
  /** What the ready head waits for, in the scheduler's words. */
  limiter?: string | null;
  dueMs?: number | null;
  /** Expected start of the head or of the task behind it, if it can be told. */
  expectedMs?: number | null;
}

export interface Part {
  text: string;
  /** A screen, or a place on the group's own: its parked line, its lane, its buttons. */
  to?: "task" | "workers" | "dead-letters" | "line" | "lane" | "actions";
  id?: string;
}

export function waitSentence(e: Explanation, nowMs: number): Part[] {
  const parts = [...blocker(e, nowMs), ...position(e)];
  if (e.limiter) parts.push({ text: ` It waits for ` }, { text: e.limiter, to: "workers" }, { text: "." });
  if (e.expectedMs != null && e.parked > 0) {
    const leftMs = e.expectedMs - nowMs;
    if (leftMs > 0) parts.push({ text: " The next starts " }, { text: `in about ${span(leftMs)}`, to: "lane" }, { text: "." });
    else parts.push({ text: " The next may start " }, { text: "at any moment", to: "lane" }, { text: "." });
  }
  return parts;
}

function blocker(e: Explanation, nowMs: number): Part[] {
  if (e.paused) {
    const by = e.paused.actor ? ` by ${e.paused.actor}` : "";
    return [{ text: `Paused${by}`, to: "actions" }, { text: ` ${ago(nowMs - e.paused.sinceMs)}${e.paused.note ? `: ${e.paused.note}` : ""}.` }];
  }
  if (!e.head) return [{ text: "Idle: nothing waits, nothing runs." }];
  const task: Part = { text: e.head.taskId, to: "task", id: e.head.taskId };
  const since = ago(nowMs - e.head.sinceMs);
  if (e.blocked) return [{ text: "Blocked by " }, task, { text: ` since ${since}: ${e.blocked.reason}.` }];
  switch (e.head.state) {
    case "running":
      return [task, { text: ` runs on ` }, { text: e.head.worker, to: "workers" }, { text: `, started ${since}${nth(e.head.attempt)}.` }];
    case "dispatched":
      return [task, { text: ` was dispatched ${since} and is not claimed yet.` }];
    case "retrying": {
      const due = e.dueMs == null ? "" : `, again in ${span(Math.max(0, e.dueMs - nowMs))}`;
      return [task, { text: ` failed ${times(e.head.attempt)}${due}.` }];
    }
    default: {
      const due = e.dueMs != null && e.dueMs > nowMs ? `, not before ${span(e.dueMs - nowMs)} from now` : "";
      return [task, { text: ` is the head and may run${due}.` }];
    }
  }
}

function position(e: Explanation): Part[] {
  if (e.parked === 0) return e.head ? [{ text: " Nothing is parked behind it." }] : [];
  const [many, are] = e.parked === 1 ? ["1 task", "is"] : [`${e.parked.toLocaleString("en")} tasks`, "are"];
  return [{ text: " " }, { text: many, to: "line" }, { text: ` ${are} parked behind it, in order.` }];
}

function nth(attempt: number): string {
  return attempt > 1 ? `, attempt ${attempt}` : "";
}
