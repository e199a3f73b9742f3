import { expect, test } from "vitest";

import { waitSentence, type Explanation } from "../src/folds/wait";

const head = { taskId: "3-7", type: "mail.send", state: "running", attempt: 1, worker: "worker-1", sinceMs: 1000 };
const read = (e: Explanation, nowMs = 5000): string => waitSentence(e, nowMs).map((part) => part.text).join("");

test.each<[string, Explanation, string]>([
  ["idle", { phase: "idle", head: null, parked: 0 }, "Idle: nothing waits, nothing runs."],
  ["running", { phase: "running", head, parked: 41, expectedMs: 7000 }, "3-7 runs on worker-1, started 4.0 s ago. 41 tasks are parked behind it, in order. The next starts in about 2.0 s."],
  ["retrying", { phase: "retrying", head: { ...head, state: "retrying", attempt: 2 }, parked: 1, dueMs: 8000 }, "3-7 failed 2 times, again in 3.0 s. 1 task is parked behind it, in order."],
  ["ready", { phase: "ready", head: { ...head, state: "parked" }, parked: 0, limiter: "no worker handles mail.send" }, "3-7 is the head and may run. Nothing is parked behind it. It waits for no worker handles mail.send."],
  ["blocked", { phase: "blocked", head, parked: 2, blocked: { reason: "attempts_spent", sinceMs: 1000 } }, "Blocked by 3-7 since 4.0 s ago: attempts_spent. 2 tasks are parked behind it, in order."],
  ["paused", { phase: "paused", head: null, parked: 3, paused: { actor: "ops", note: "deploy", sinceMs: 1000 } }, "Paused by ops 4.0 s ago: deploy. 3 tasks are parked behind it, in order."],
])("%s", (_, explanation, sentence) => expect(read(explanation)).toBe(sentence));

test("its parts are links to what they name", () => {
  const links = (e: Explanation): unknown => waitSentence(e, 5000).filter((p) => p.to).map((p) => [p.to, p.text]);
  expect(links({ phase: "running", head, parked: 2, limiter: "free slots", expectedMs: 7000 })).toEqual([
    ["task", "3-7"], ["workers", "worker-1"], ["line", "2 tasks"], ["workers", "free slots"], ["lane", "in about 2.0 s"],
  ]);
  expect(links({ phase: "paused", head: null, parked: 1, paused: { actor: "ops", note: "", sinceMs: 0 } })).toEqual([["actions", "Paused by ops"], ["line", "1 task"]]);
});
