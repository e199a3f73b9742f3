import { describe, expect, test } from "vitest";

import { TimeAxis, busySpans, FOLD_PX } from "../src/folds/axis";

describe("the time axis", () => {
  const spans = [{ start: 0, end: 100 }, { start: 100, end: 200 }, { start: 10_000, end: 10_200 }];

  test("merges what touches, and small gaps", () => {
    expect(busySpans([...spans, { start: 230, end: 260 }], 50)).toEqual([{ start: 0, end: 260 }, { start: 10_000, end: 10_200 }]);
  });

  test("folds idle time to a mark that hardly grows with it", () => {
    const axis = new TimeAxis(spans, 428, 500);
    const fold = axis.pieces[1]!;
    expect(axis.pieces.map((p) => p.folded)).toEqual([false, true, false]);
    expect(fold.x1 - fold.x0).toBeGreaterThan(8);
    expect(fold.x1 - fold.x0).toBeLessThanOrEqual(FOLD_PX);
    expect(axis.x(100)).toBeCloseTo(axis.x(200) / 2, 6);
    expect(axis.x(10_200)).toBeCloseTo(428, 6);
  });

  test("shows a task of a millisecond beside one of a minute", () => {
    const axis = new TimeAxis([{ start: 0, end: 1 }, { start: 100_000, end: 160_000 }], 600, 20);
    expect(axis.x(1) - axis.x(0)).toBeGreaterThanOrEqual(3);
  });

  test("presses one that takes very long, so that the others can be seen, and says so", () => {
    const short = Array.from({ length: 10 }, (_, i) => ({ start: i * 10, end: i * 10 + 10 }));
    const axis = new TimeAxis([...short, { start: 100, end: 60_100 }], 1000, 20);
    expect(axis.pieces.map((p) => p.pressed)).toEqual([false, true]);
    expect(axis.x(100)).toBeGreaterThan(450);
    expect(axis.x(60_100)).toBeCloseTo(1000, 6);
    const alone = new TimeAxis([{ start: 0, end: 60_000 }], 1000, 20);
    expect(alone.pieces.map((p) => p.pressed)).toEqual([false]);
  });

  test("gives the time of a place back", () => {
    const axis = new TimeAxis(spans, 1000, 500);
    for (const time of [0, 37, 199, 10_000, 10_150]) expect(axis.time(axis.x(time))).toBeCloseTo(time, 3);
  });

  test("never goes backwards, however many folds there are", () => {
    const many = Array.from({ length: 200 }, (_, i) => ({ start: i * 1000, end: i * 1000 + 5 }));
    const axis = new TimeAxis(many, 300, 100);
    const places = many.flatMap((s) => [axis.x(s.start), axis.x(s.end)]);
    expect(places.every((x, i) => i === 0 || x >= places[i - 1]!)).toBe(true);
    expect(places.at(-1)).toBeCloseTo(300, 6);
  });

  test("is empty without spans", () => {
    const axis = new TimeAxis([], 300, 100);
    expect(axis.x(5)).toBe(0);
    expect(axis.time(5)).toBeUndefined();
  });
});
