import { expect, test } from "vitest";

import { bars, hit, overlapCount, type Execution } from "../src/folds/lane";

function run(startMs: number, endMs: number | null, more: Partial<Execution> = {}): Execution {
  return { taskId: `t${startMs}`, type: "x", state: "succeeded", attempt: 1, token: "1", worker: "w", startMs, endMs, refused: false, ...more };
}

test("bars that touch do not overlap", () => {
  expect(overlapCount(bars([run(0, 10), run(10, 20)], 50))).toBe(0);
});

test("a planted overlap marks both sides, also under a long bar", () => {
  const marked = bars([run(0, 100), run(10, 20), run(50, 60), run(100, 110)], 200);
  expect(marked.map((bar) => bar.overlaps)).toEqual([true, true, true, false]);
});

test("a refused zombie is no overlap: its report counted for nothing", () => {
  expect(overlapCount(bars([run(0, 100, { refused: true }), run(50, 60)], 200))).toBe(0);
});

test("what still runs reaches now", () => {
  expect(bars([run(10, null)], 70)[0]!.end).toBe(70);
});

test("the pointer finds its bar, thin ones with some slack", () => {
  const sorted = bars([run(0, 100), run(200, 201), run(300, 400)], 500);
  expect(hit(sorted, 50, 0)).toBe(0);
  expect(hit(sorted, 150, 0)).toBe(-1);
  expect(hit(sorted, 204, 5)).toBe(1);
  expect(hit(sorted, 400, 0)).toBe(2);
  expect(hit([], 5, 5)).toBe(-1);
});
