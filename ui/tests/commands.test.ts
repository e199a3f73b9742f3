import { expect, test } from "vitest";

import { commandLine, type Asked } from "@/folds/commands";

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
