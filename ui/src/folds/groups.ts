/** Groups as columns outside of Vue's reactivity; one counter tells that something changed. */

import type { GroupColumns } from "@/api/types";

export interface GroupChange {
  group: string;
  state: string;
  parked: number;
  done: number;
  sinceMs: number;
}

/** Rows drawn above and below what is seen. */
const OVER = 4;

export class GroupTable {
  readonly ids: string[] = [];
  readonly states: string[] = [];
  readonly parked: number[] = [];
  readonly done: number[] = [];
  readonly sinceMs: number[] = [];
  /** When a row last changed, for its tint; by `performance.now()`. */
  readonly touchedMs: number[] = [];
  private readonly places = new Map<string, number>();
  private names = new Uint32Array();

  load(columns: GroupColumns): void {
    for (const column of [this.ids, this.states, this.parked, this.done, this.sinceMs, this.touchedMs]) column.length = 0;
    this.places.clear();
    this.names = new Uint32Array();
    columns.ids.forEach((group, i) => {
      this.apply(
        {
          group,
          state: columns.states[i] ?? "idle",
          parked: columns.parked[i] ?? 0,
          done: columns.done[i] ?? 0,
          sinceMs: columns.sinceMs[i] ?? 0,
        },
        -1e9,
      );
    });
  }

  /** Replaces a row; a new group is added at the end, so no row moves. */
  apply(change: GroupChange, nowMs: number): void {
    let place = this.places.get(change.group);
    if (place === undefined) {
      place = this.ids.length;
      this.places.set(change.group, place);
      this.ids.push(change.group);
    }
    this.states[place] = change.state;
    this.parked[place] = change.parked;
    this.done[place] = change.done;
    this.sinceMs[place] = change.sinceMs;
    this.touchedMs[place] = nowMs;
  }

  /** Rows by name.  Names never change, so it is sorted anew only when groups have come. */
  byName(): Uint32Array {
    if (this.names.length !== this.size) {
      this.names = Uint32Array.from(this.ids.keys()).sort((a, b) => (this.ids[a]! < this.ids[b]! ? -1 : 1));
    }
    return this.names;
  }

  get size(): number {
    return this.ids.length;
  }

  placeOf(group: string): number | undefined {
    return this.places.get(group);
  }
}

export interface Filter {
  text: string;
  state: string;
  sort: "name" | "parked" | "done" | "since";
}

/** Rows that pass the filter, in the order asked for; ties keep the server's order. */
export function select(table: GroupTable, filter: Filter): Uint32Array {
  const text = filter.text.trim().toLowerCase();
  const order = filter.sort === "name" ? table.byName() : null;
  const found = new Uint32Array(table.size);
  let n = 0;
  for (let at = 0; at < table.size; at++) {
    const i = order ? order[at]! : at;
    if (filter.state && table.states[i] !== filter.state) continue;
    if (text && !table.ids[i]!.toLowerCase().includes(text)) continue;
    found[n++] = i;
  }
  const rows = found.subarray(0, n);
  const { parked, done, sinceMs } = table;
  if (filter.sort === "parked") rows.sort((a, b) => parked[b]! - parked[a]! || a - b);
  else if (filter.sort === "done") rows.sort((a, b) => done[b]! - done[a]! || a - b);
  else if (filter.sort === "since") rows.sort((a, b) => sinceMs[a]! - sinceMs[b]! || a - b);
  return rows;
}

/** How many groups whose name holds this text are in each state. */
export function countStates(table: GroupTable, text: string): Map<string, number> {
  const wanted = text.trim().toLowerCase();
  const counts = new Map<string, number>();
  for (let i = 0; i < table.size; i++) {
    if (wanted && !table.ids[i]!.toLowerCase().includes(wanted)) continue;
    const state = table.states[i]!;
    counts.set(state, (counts.get(state) ?? 0) + 1);
  }
  return counts;
}

/**
 * Which place of [first, first + slots) an element of the page shows.  What stays in sight stays in its element: scrolling
 * by three rows draws three.
 */
export function placeIn(slot: number, first: number, slots: number): number {
  return first + ((((slot - first) % slots) + slots) % slots);
}

/** Places of [first, last) of `rows` that are to be drawn: what is seen and a few above and below, however many rows. */
export function visible(rows: number, topPx: number, highPx: number, rowPx: number): [number, number] {
  const first = Math.max(0, Math.min(rows, Math.floor(topPx / rowPx) - OVER));
  return [first, Math.min(rows, first + Math.ceil(highPx / rowPx) + 2 * OVER)];
}
