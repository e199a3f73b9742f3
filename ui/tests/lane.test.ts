import { expect, test } from "vitest";

import { asOf, bars, hit, idleMsOf, joinPages, overlapCount, windowOf, type Execution } from "../src/folds/lane";

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

test("an hour ago, what ended since still ran, and what began since was not there", () => {
  const then = asOf([run(0, 10), run(20, 40, { refused: true }), run(50, null)], 30);
  expect(then).toEqual([run(0, 10), { ...run(20, 40), state: "running", endMs: null, refused: false }]);
});

const paged = (...tokens: number[]): Execution[] => tokens.map((n) => run(n, n + 1, { token: String(2n ** 60n + BigInt(n)) }));
const tokensOf = (list: Execution[]): number[] => list.map((e) => Number(BigInt(e.token) - 2n ** 60n));

test("pages are joined, each execution once and as the newest page says it", () => {
  expect(tokensOf(joinPages(paged(5, 6, 7), paged(6, 7, 8)))).toEqual([5, 6, 7, 8]);
  expect(tokensOf(joinPages(paged(5, 6), paged(2, 3)))).toEqual([2, 3, 5, 6]);
  expect(joinPages([run(1, null, { token: "1" })], [run(1, 9, { token: "1" })])[0]!.endMs).toBe(9);
  expect(tokensOf(joinPages(paged(1, 2), []))).toEqual([1, 2]);
});

test("a page with a hole before it stands alone: between them something is missing", () => {
  expect(tokensOf(joinPages(paged(1, 2), paged(8, 9)))).toEqual([8, 9]);
});

test("a window stays within what there is", () => {
  expect(windowOf(100, 30, 100)).toEqual([70, 100]);
  expect(windowOf(100, 30, 10)).toEqual([0, 30]);
  expect(windowOf(5, 30, 5)).toEqual([0, 5]);
  expect(windowOf(0, 30, 0)).toEqual([0, 0]);
});

test("idle is what is longer than a usual task", () => {
  expect(idleMsOf(bars([run(0, 500), run(600, 1100), run(1200, 9000)], 9000))).toBe(500);
  expect(idleMsOf([])).toBe(20);
});
