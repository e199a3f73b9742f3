/** A command as it is asked for, and the line that does the same in a terminal. */

import type { CommandKind } from "@/api/types";

import { cli, shellQuote } from "./words";

export interface Asked {
  kind: CommandKind;
  group: string;
  taskId?: string;
  /** Of a dead letter: an id may have several. */
  sequence?: string;
  place?: "head" | "tail";
  payload?: string;
  running?: boolean;
  /** The head that was seen: if another one is there by now, nothing happens. */
  ifHead?: string;
  title: string;
  effect: string;
}

const VERBS: Record<CommandKind, string> = {
  pause_group: "pause", resume_group: "resume", cancel_task: "cancel", cancel_group: "cancel", skip_head: "skip", edit_head: "edit",
  retry_now: "retry", unblock: "unblock", release: "release", redrive: "redrive", edit_and_redrive: "redrive",
  discard_dead_letter: "discard", forget_group: "forget",
}; // prettier-ignore

export function commandLine(asked: Asked): string {
  const { kind, group } = asked;
  if (kind === "redrive" || kind === "edit_and_redrive") {
    const words = ["redrive", "--group", group, "--id", asked.taskId ?? "", "--to", asked.place ?? "head"];
    return cli(...words, ...(asked.payload ? ["--payload", asked.payload] : []));
  }
  const words = [VERBS[kind], group];
  if (kind === "cancel_group") words.push("--all", ...(asked.running ? ["--running"] : []));
  if (asked.taskId) words.push(asked.taskId);
  if (kind === "edit_head") words.push(asked.payload ?? "");
  if (asked.ifHead) words.push("--if-head", asked.ifHead);
  return cli(...words);
}

/** The line for work on many.  Redrives have a verb of their own; a filter of groups is known to the HTTP API alone. */
export function jobLine(path: string, body: Record<string, unknown>, origin: string): string {
  if (path === "/redrives") {
    const filter = body.filter as Record<string, string>;
    return cli("redrive", ...["group", "reason"].flatMap((name) => (filter[name] ? [`--${name}`, filter[name]] : [])), "--to", String(body.place ?? "head"));
  }
  return ["curl", `${origin}/api${path}`, "-H", "content-type: application/json", "-d", JSON.stringify(body)].map(shellQuote).join(" ");
}
