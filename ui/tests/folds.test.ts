import { describe, expect, test } from "vitest";

import { diffLines } from "../src/folds/diff";
import { countStates, GroupTable, placeIn, select, visible } from "../src/folds/groups";
import { lookOf } from "../src/folds/states";
import { fold, health, initial, retryDelayMs } from "../src/folds/stream";
import { cellAt, wallLayout } from "../src/folds/wall";
import { cli, indentJson, middle, ranges, span } from "../src/folds/words";

describe("the wall", () => {
  test.each([[1, 800, 600], [4044, 1300, 520], [100_000, 1300, 520], [100_000, 340, 400]])("%i groups in %i × %i", (count, width, height) => {
    const layout = wallLayout(count, width, height);
    expect(layout.columns * layout.rows).toBeGreaterThanOrEqual(count);
    expect(layout.columns * (layout.cell + layout.gap)).toBeLessThanOrEqual(Math.max(width, 2));
    const pitch = layout.cell + layout.gap;
    const last = count - 1;
    expect(cellAt(layout, count, (last % layout.columns) * pitch, Math.floor(last / layout.columns) * pitch)).toBe(last);
    expect(cellAt(layout, count, -1, 0)).toBe(-1);
    expect(cellAt(layout, count, 0, (layout.rows + 1) * pitch)).toBe(-1);
  });
});

describe("the stream", () => {
  test("tells silence from a read model that lags", () => {
    const lost = fold(initial(0), { kind: "lost", retryMs: 500 }, 1000);
    expect(health(lost, 2000)).toBe("live");
    expect(health(lost, 4500)).toBe("late");
    expect(health(lost, 12_000)).toBe("lost");
    const stale = fold(initial(0), { kind: "heartbeat", serverMs: 0, lagS: 9 }, 0);
    expect(health(stale, 0)).toBe("stale");
  });

  test("the first loss is what counts, however often it tries", () => {
    let state = fold(initial(0), { kind: "lost", retryMs: 500 }, 1000);
    state = fold(state, { kind: "lost", retryMs: 1000 }, 1500);
    expect(state.lostSinceMs).toBe(1000);
  });

  test("counts what it caught up with after a reconnect", () => {
    let state = fold(initial(0), { kind: "lost", retryMs: 500 }, 1000);
    state = fold(state, { kind: "open" }, 2000);
    state = fold(state, { kind: "delta", id: "a", events: 7, serverMs: 2010 }, 2010);
    expect(state).toMatchObject({ lostSinceMs: null, caughtUp: 7, lastId: "a" });
  });

  test("a resync forgets the id and asks for a load", () => {
    const state = fold({ ...initial(0), lastId: "old" }, { kind: "resync" }, 1);
    expect(state).toMatchObject({ lastId: "", resyncs: 1 });
  });

  test("tries less and less often", () => {
    expect([0, 1, 2, 30].map(retryDelayMs)).toEqual([500, 1000, 2000, 15_000]);
  });
});

describe("groups", () => {
  const columns = { ids: ["b", "a", "__proto__"], states: ["running", "idle", "idle"], parked: [3, 9, 0], done: [0, 0, 0], sinceMs: [0, 0, 0] };

  test("folding changes gives what a snapshot gives", () => {
    const folded = new GroupTable();
    folded.load({ ids: ["b"], states: ["ready"], parked: [1], done: [0], sinceMs: [0] });
    columns.ids.forEach((group, i) => folded.apply({ group, state: columns.states[i]!, parked: columns.parked[i]!, done: 0, sinceMs: 0 }, 0));
    const whole = new GroupTable();
    whole.load(columns);
    for (const key of ["ids", "states", "parked", "done"] as const) expect(folded[key]).toEqual(whole[key]);
  });

  test("filters and sorts", () => {
    const table = new GroupTable();
    table.load(columns);
    const ids = (filter: Parameters<typeof select>[1]): string[] => [...select(table, filter)].map((i) => table.ids[i]!);
    expect(ids({ text: "", state: "", sort: "parked" })).toEqual(["a", "b", "__proto__"]);
    expect(ids({ text: "PROTO", state: "", sort: "name" })).toEqual(["__proto__"]);
    expect(ids({ text: "", state: "running", sort: "name" })).toEqual(["b"]);
  });
});

describe("a hundred thousand groups", () => {
  const table = new GroupTable();
  const many = Array.from({ length: 100_000 }, (_, i) => i);
  table.load({ ids: many.map((i) => `g${(i * 7919) % 100_000}`), states: many.map((i) => (i % 10 ? "idle" : "running")), parked: many, done: many, sinceMs: many });

  test("are a few rows on the screen, wherever it is scrolled to", () => {
    for (const top of [0, 31, 1_600_000, 3_199_000, 9_999_999]) {
      const [first, last] = visible(table.size, top, 700, 32);
      expect(last - first).toBeLessThanOrEqual(Math.ceil(700 / 32) + 8);
      expect(first).toBeGreaterThanOrEqual(0);
      expect(last).toBeLessThanOrEqual(table.size);
    }
    expect(visible(3, 0, 700, 32)).toEqual([0, 3]);
    expect(visible(0, 0, 700, 32)).toEqual([0, 0]);
  });

  test("stay in their element of the page while they are in sight", () => {
    const at = (first: number): number[] => [...Array(30).keys()].map((slot) => placeIn(slot, first, 30));
    expect([...at(1000)].sort((a, b) => a - b)).toEqual([...Array(30).keys()].map((i) => 1000 + i));
    const [before, after] = [at(1000), at(1003)];
    expect(after.filter((place, slot) => place !== before[slot])).toHaveLength(3);
  });

  test("are not sorted again by a change of one", () => {
    const table = new GroupTable();
    const few = [...Array(500).keys()];
    table.load({ ids: few.map((i) => `g${(i * 7919) % 500}`), states: few.map(() => "idle"), parked: few, done: few, sinceMs: few });
    const order = table.byName();
    table.apply({ group: "g5", state: "paused", parked: 1, done: 2, sinceMs: 3 }, 0);
    expect(table.byName()).toBe(order);
    table.apply({ group: "new", state: "idle", parked: 0, done: 0, sinceMs: 3 }, 0);
    expect([...table.byName()].map((i) => table.ids[i]!)).toEqual([...table.ids].sort());
  });

  test("are counted by state under the search", () => {
    const counts = countStates(table, "G9999");
    const named = table.ids.filter((id) => id.startsWith("g9999"));
    expect([...counts.values()].reduce((a, b) => a + b, 0)).toBe(named.length);
    expect(countStates(table, "").get("running")).toBe(10_000);
  });
});

describe("words", () => {
  test("numbers that follow each other are a range", () => {
    expect(ranges([7, 0, 2, 1, 5, 8])).toBe("0–2, 5, 7–8");
    expect(ranges([])).toBe("");
  });

  test("big integers keep every digit", () => {
    expect(indentJson('{"id":9007199254740993,"s":"a{\\"b","e":{},"l":[1,2]}')).toBe('{\n  "id": 9007199254740993,\n  "s": "a{\\"b",\n  "e": {},\n  "l": [\n    1,\n    2\n  ]\n}');
  });

  test("hostile ids are quoted for the shell", () => {
    expect(cli("pause", "a'; rm -rf /")).toBe(`pstp pause 'a'\\''; rm -rf /'`);
    expect(cli("pause", "customer-17")).toBe("pstp pause customer-17");
    expect(cli("pause", "")).toBe("pstp pause ''");
  });

  test("long ids are cut between characters", () => {
    expect(middle("😀".repeat(50), 9)).toBe("😀😀😀😀…😀😀😀😀");
  });

  test("states that no version knows are shown as they are", () => {
    expect(lookOf("constructor").word).toBe("constructor");
  });

  test.each([[5, "5 ms"], [4321, "4.3 s"], [65_000, "65 s"], [600_000, "10 min"], [7_200_000, "2 h"]])("%i ms", (ms, text) => {
    expect(span(ms)).toBe(text);
  });

  test("a diff keeps what is the same", () => {
    expect(diffLines("a\nb\nc", "a\nx\nc").map((l) => `${l.kind} ${l.text}`)).toEqual(["same a", "out b", "in x", "same c"]);
  });
});
