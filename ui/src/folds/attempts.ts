/** Attempts of a task, put together from its events: an attempt begins when it is dispatched and ends with the next state. */

import type { TaskEvent } from "@/api/types";

export interface Attempt {
  number: number;
  worker: string;
  dispatchedMs: number;
  /** Null if it never ran. */
  startMs: number | null;
  /** Null while it goes on. */
  endMs: number | null;
  /** The state that ended it; the one that it is in while it goes on. */
  state: string;
  reason: string;
  error: string;
}

const ON = new Set(["dispatched", "running", "cancelling"]);

export function attempts(events: readonly TaskEvent[]): Attempt[] {
  const found: Attempt[] = [];
  let now: Attempt | null = null;
  for (const event of events) {
    const { state } = event;
    if (state === null) continue;
    if (!ON.has(state)) {
      if (now) Object.assign(now, { state, endMs: event.atMs, reason: event.reason ?? "", error: event.error ?? "" });
      now = null;
      continue;
    }
    if (!now || (state === "dispatched" && now.startMs !== null)) {
      now = { number: event.attempt ?? 0, worker: "", dispatchedMs: event.atMs, startMs: null, endMs: null, state, reason: "", error: "" };
      found.push(now);
    }
    now.state = state;
    now.number = event.attempt ?? now.number;
    now.worker = event.worker ?? now.worker;
    if (state === "running") now.startMs ??= event.atMs;
  }
  return found;
}
