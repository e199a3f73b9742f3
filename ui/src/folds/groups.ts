/** Groups as columns outside of Vue's reactivity; one counter tells that something changed. */

import type { GroupColumns } from "@/api/types";

export interface GroupChange {
  group: string;
  state: string;
  parked: number;
  done: number;
  sinceMs: number;
}

export class GroupTable {
  readonly ids: string[] = [];
  readonly states: string[] = [];
  readonly parked: number[] = [];
  readonly done: number[] = [];
  readonly sinceMs: number[] = [];
  /** When a row last changed, for its tint; by `performance.now()`. */
  readonly touchedMs: number[] = [];
  private readonly places = new Map<string, number>();

  load(columns: GroupColumns): void {
    for (const column of [this.ids, this.states, this.parked, this.done, this.sinceMs, this.touchedMs]) column.length = 0;
    this.places.clear();
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
  const found: number[] = [];
  for (let i = 0; i < table.size; i++) {
    if (filter.state && table.states[i] !== filter.state) continue;
    if (text && !table.ids[i]!.toLowerCase().includes(text)) continue;
    found.push(i);
  }
  const { ids, parked, done, sinceMs } = table;
  if (filter.sort === "parked") found.sort((a, b) => parked[b]! - parked[a]! || a - b);
  else if (filter.sort === "done") found.sort((a, b) => done[b]! - done[a]! || a - b);
  else if (filter.sort === "since") found.sort((a, b) => sinceMs[a]! - sinceMs[b]! || a - b);
  else found.sort((a, b) => (ids[a]! < ids[b]! ? -1 : ids[a]! > ids[b]! ? 1 : 0));
  return Uint32Array.from(found);
}
