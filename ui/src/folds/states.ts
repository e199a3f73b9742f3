/** States of a task as `task-events` names them, with the word, colour variable and shape each is shown by. */

export type TaskState =
  | "parked" | "dispatched" | "running" | "retrying" | "succeeded"
  | "dead_lettered" | "cancelling" | "cancelled" | "skipped" | "rejected";

export type Shape = "outline" | "dot" | "moving" | "hatch" | "solid" | "notch" | "bars" | "struck";

export interface Look {
  word: string;
  /** CSS custom property that holds the colour; its value depends on the theme. */
  color: string;
  shape: Shape;
}

/** Colour, shape and word always go together: nobody has to tell red from amber. */
export const LOOKS: Record<TaskState | "paused" | "blocked" | "ready" | "idle", Look> = {
  parked: { word: "parked", color: "--s-quiet", shape: "outline" },
  ready: { word: "ready", color: "--s-quiet", shape: "dot" },
  idle: { word: "idle", color: "--s-quiet", shape: "outline" },
  dispatched: { word: "dispatched", color: "--s-quiet", shape: "dot" },
  running: { word: "running", color: "--s-running", shape: "moving" },
  retrying: { word: "retrying", color: "--s-retrying", shape: "hatch" },
  succeeded: { word: "succeeded", color: "--s-ok", shape: "solid" },
  dead_lettered: { word: "dead letter", color: "--s-dead", shape: "notch" },
  blocked: { word: "blocked", color: "--s-dead", shape: "notch" },
  paused: { word: "paused", color: "--s-paused", shape: "bars" },
  cancelling: { word: "cancelling", color: "--s-quiet", shape: "struck" },
  cancelled: { word: "cancelled", color: "--s-quiet", shape: "struck" },
  skipped: { word: "skipped", color: "--s-quiet", shape: "struck" },
  rejected: { word: "rejected", color: "--s-quiet", shape: "struck" },
};

export function lookOf(state: string): Look {
  return Object.hasOwn(LOOKS, state)
    ? LOOKS[state as keyof typeof LOOKS]
    : { word: state, color: "--s-quiet", shape: "outline" };
}

const TERMINAL = new Set<string>(["succeeded", "dead_lettered", "cancelled", "skipped", "rejected"]);

export function isTerminal(state: string): boolean {
  return TERMINAL.has(state);
}
