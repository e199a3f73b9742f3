import { expect, test } from "vitest";

import { commandLine, jobLine, type Asked } from "@/folds/commands";

const asked = (more: Partial<Asked>): Asked => ({ kind: "pause_group", group: "a b", title: "", effect: "", ...more });

test("a command as a line that the CLI takes", () => {
  expect(commandLine(asked({}))).toBe("pstp pause 'a b'");
  expect(commandLine(asked({ kind: "cancel_task", taskId: "3-4" }))).toBe("pstp cancel 'a b' 3-4");
  expect(commandLine(asked({ kind: "cancel_group", running: true }))).toBe("pstp cancel 'a b' --all --running");
  expect(commandLine(asked({ kind: "skip_head", ifHead: "3-4" }))).toBe("pstp skip 'a b' --if-head 3-4");
  expect(commandLine(asked({ kind: "redrive", taskId: "3-4", place: "tail" }))).toBe("pstp redrive --group 'a b' --id 3-4 --to tail");
});

test("hostile groups stay one word", () => {
  expect(commandLine(asked({ group: "'; rm -rf /" }))).toBe(`pstp pause ''\\''; rm -rf /'`);
});

test("work on many as a line: a verb where there is one, else the request itself", () => {
  expect(jobLine("/redrives", { filter: { reason: "timeout" }, place: "tail" }, "http://h")).toBe("pstp redrive --reason timeout --to tail");
  expect(jobLine("/redrives", { filter: {}, place: "head" }, "http://h")).toBe("pstp redrive --to head");
  expect(jobLine("/bulk", { kind: "pause_group", filter: { q: "it's" } }, "http://h")).toBe(
    `curl http://h/api/bulk -H 'content-type: application/json' -d '{"kind":"pause_group","filter":{"q":"it'\\''s"}}'`,
  );
});
