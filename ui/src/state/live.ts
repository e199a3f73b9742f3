/** Live data: columns and the last overview, outside of deep reactivity; `tick` rises at most once a frame. */

import { computed, ref, shallowRef } from "vue";

import { get } from "@/api/http";
import type { GroupColumns, Overview } from "@/api/types";
import { GroupTable, type GroupChange } from "@/folds/groups";
import { fold, health, initial, type Message } from "@/folds/stream";

interface Delta {
  server_ms: number;
  events: number;
  overview?: Overview;
  groups?: GroupChange[];
}

export const table = new GroupTable();
export const overview = shallowRef<Overview | null>(null);
export const tick = ref(0);
export const loaded = ref(false);
export const loadError = shallowRef<Error | null>(null);
export const frozen = ref(false);
export const waiting = ref(0);
/** This browser's clock, once a second: one timer for every relative time on the page. */
export const clockMs = ref(Date.now());
export const stream = shallowRef(initial(Date.now()));
export const streamHealth = computed(() => health(stream.value, clockMs.value));
export const serverNowMs = computed(() => clockMs.value + stream.value.skewMs);
/** Groups named by the last deltas: a group's screen loads again when its own is among them. */
export const changed = shallowRef<ReadonlySet<string>>(new Set());

let held: Delta[] = [];
let loading = false;
/** Deltas that came while a snapshot was on its way: they are applied to it, in order. */
let meanwhile: Delta[] = [];
let scheduled = false;
let touched = new Set<string>();

/** Call it when the stream is open: then no change can fall between the snapshot and the first delta. */
export async function load(): Promise<void> {
  if (loading) return;
  loading = true;
  try {
    const [all, columns] = await Promise.all([get<Overview>("/overview"), get<GroupColumns>("/groups/columns")]);
    overview.value = all;
    table.load(columns);
    loaded.value = true;
    loadError.value = null;
    tick.value++;
  } catch (error) {
    loadError.value = error as Error;
  }
  loading = false;
  const deltas = meanwhile;
  meanwhile = [];
  deltas.forEach(take);
}

export function connect(): void {
  setInterval(() => (clockMs.value = Date.now()), 1000);
  const worker = new SharedWorker(new URL("../api/stream.worker.ts", import.meta.url), { type: "module", name: "pstp" });
  worker.port.onmessage = (event: MessageEvent<{ kind: string; id?: string; retryMs?: number; data?: string }>) => hear(event.data);
  worker.port.start();
  window.addEventListener("pagehide", () => worker.port.postMessage("bye"));
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.reload(); // its port was given back
  });
}

export function setFrozen(value: boolean): void {
  frozen.value = value;
  if (value) return;
  for (const delta of held) take(delta);
  held = [];
  waiting.value = 0;
}

function hear(said: { kind: string; id?: string; retryMs?: number; data?: string }): void {
  const now = Date.now();
  const data = said.data ? (JSON.parse(said.data) as Delta & { lag_s?: number }) : undefined;
  const message: Message | null =
    said.kind === "open" ? { kind: "open" }
    : said.kind === "lost" ? { kind: "lost", retryMs: said.retryMs ?? 0 }
    : said.kind === "resync" ? { kind: "resync" }
    : said.kind === "heartbeat" && data ? { kind: "heartbeat", serverMs: data.server_ms, lagS: data.lag_s ?? 0 }
    : said.kind === "delta" && data ? { kind: "delta", id: said.id ?? "", events: data.events, serverMs: data.server_ms }
    : null; // prettier-ignore
  if (!message) return;
  stream.value = fold(stream.value, message, now);
  if (message.kind === "resync" || (message.kind !== "delta" && message.kind !== "heartbeat" && !loaded.value)) void load();
  if (message.kind === "open" && loadError.value) void load();
  if (message.kind !== "delta" || !data) return;
  if (frozen.value) {
    held.push(data);
    waiting.value += data.events;
  } else take(data);
}

function take(delta: Delta): void {
  if (loading) {
    meanwhile.push(delta);
    return;
  }
  if (delta.overview) overview.value = delta.overview;
  const now = performance.now();
  for (const change of delta.groups ?? []) {
    table.apply(change, now);
    touched.add(change.group);
  }
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    changed.value = touched;
    touched = new Set();
    tick.value++;
  });
}
