import { expect, test } from "vitest";

import { attempts } from "../src/folds/attempts";
import type { TaskEvent } from "../src/api/types";

let ms = 0;
const event = (state: string | null, more: Partial<TaskEvent> = {}): TaskEvent => ({
  atMs: (ms += 10), state, kind: "task", attempt: null, worker: null, reason: null, note: null, partition: 0, offset: String(ms), error: null, ...more,
});

test("each attempt has its worker, its times, and why it ended", () => {
  ms = 0;
  const found = attempts([
    event("parked"), event("dispatched", { attempt: 1 }), event("running", { attempt: 1, worker: "w1" }),
    event("retrying", { attempt: 1, reason: "failed", error: "ValueError: no" }), event(null, { kind: "stale_report" }),
    event("dispatched", { attempt: 2 }), event("running", { attempt: 2, worker: "w2" }), event("succeeded", { attempt: 2 }),
  ]);
  expect(found).toEqual([
    { number: 1, worker: "w1", dispatchedMs: 20, startMs: 30, endMs: 40, state: "retrying", reason: "failed", error: "ValueError: no" },
    { number: 2, worker: "w2", dispatchedMs: 60, startMs: 70, endMs: 80, state: "succeeded", reason: "", error: "" },
  ]);
});

test("what goes on has no end, what was taken back never ran", () => {
  ms = 0;
  const found = attempts([event("parked"), event("dispatched"), event("parked", { reason: "taken_back" }), event("dispatched"), event("running"), event("cancelling")]);
  expect(found.map((one) => [one.startMs, one.endMs, one.state])).toEqual([[null, 30, "parked"], [50, null, "cancelling"]]);
  expect(attempts([])).toEqual([]);
});

test("an execution that begins without a dispatch of its own is one, too", () => {
  ms = 0;
  expect(attempts([event("parked"), event("running", { worker: "r1" }), event("succeeded")])).toHaveLength(1);
});
