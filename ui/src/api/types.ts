/** What the HTTP API says.  Offsets, tokens and ids are text; times are ms since 1970, by the server's clock. */

import type { Execution } from "@/folds/lane";
import type { Explanation } from "@/folds/wait";

export interface Overview {
  throughput: number;
  ready: number;
  running: number;
  parked: number;
  failing: number;
  deadLetters: number;
  groups: number;
  oldestMs: number | null;
  lagS: number;
  workers: number;
  slots: number;
  slotsUsed: number;
  schedulers: number;
  cluster: string;
  verify: { overlaps: number; executions: number; begun: number; atMs: number } | null;
  /** Completed per second, one value a second, oldest first. */
  history: number[];
}

/** Groups as columns, in the server's order: a hundred thousand objects would be ten times the memory. */
export interface GroupColumns {
  ids: string[];
  states: string[];
  parked: number[];
  done: number[];
  sinceMs: number[];
}

export interface TaskRow {
  taskId: string;
  type: string;
  state: string;
  attempt: number;
  sequence: string;
}

export interface GroupDetail {
  group: string;
  state: string;
  explanation: Explanation;
  executions: Execution[];
  parked: TaskRow[];
  groupState: string | null;
  partition: number;
  /** Cursor of the executions before these; null if there are none. */
  older: string | null;
}

export interface TaskEvent {
  atMs: number;
  state: string | null;
  kind: string;
  attempt: number | null;
  worker: string | null;
  reason: string | null;
  note: string | null;
  partition: number;
  offset: string;
  error: string | null;
}

export interface TaskDetail extends TaskRow {
  group: string;
  payload: string;
  payloadCut: boolean;
  result: string | null;
  error: { type: string; message: string; traceback: string | null } | null;
  progress: number | null;
  note: string | null;
  worker: string | null;
  token: string | null;
  events: TaskEvent[];
}

export interface DeadLetter {
  taskId: string;
  sequence: string;
  group: string;
  type: string;
  reason: string;
  error: string;
  atMs: number;
  attempt: number;
  payload: string;
  payloadCut: boolean;
  /** Something in the payload is hidden: it can be redriven as it is, not edited here. */
  masked: boolean;
  /** False for a record that never was a task. */
  redrivable: boolean;
}

export interface Session {
  name: string | null;
  role: "anyone" | "viewer" | "operator" | "admin";
  keys: boolean;
}

/** A redrive or a bulk command; `id` is null for a dry run. */
export interface Job {
  id: string | null;
  kind: string;
  state: "dry_run" | "running" | "done" | "aborted" | "failed";
  total: number;
  done: number;
  refused: Record<string, number>;
  error: string;
  first: string[];
}

export interface Submitted {
  taskId: string;
  partition: number;
  offset: string;
}

export interface MemberRow {
  instance: string;
  role: "scheduler" | "worker";
  host: string;
  pid: number;
  version: string;
  atMs: number;
  partitions: number[];
  slots: number;
  slotsUsed: number;
  types: string[];
  running: { taskId: string; group: string; type: string; sinceMs: number }[];
}

export type CommandKind =
  | "pause_group" | "resume_group" | "cancel_task" | "cancel_group" | "skip_head" | "edit_head" | "retry_now"
  | "unblock" | "release" | "redrive" | "edit_and_redrive" | "discard_dead_letter" | "forget_group";

export interface CommandAnswer {
  commandId: string;
  outcome: "done" | "accepted" | "refused" | null;
  /** Where the command stands in the log, once it does. */
  partition: number | null;
  offset: string | null;
  refusal: string | null;
}
