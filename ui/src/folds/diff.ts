/** Lines that were taken out, put in or kept, for a payload of some hundred lines. */

export interface DiffLine {
  kind: "same" | "out" | "in";
  text: string;
}

const LINES_MAX = 2000;

/** Shortest edit by longest common subsequence; beyond LINES_MAX lines, all out and all in. */
export function diffLines(before: string, after: string): DiffLine[] {
  const a = before.split("\n");
  const b = after.split("\n");
  if (a.length > LINES_MAX || b.length > LINES_MAX) {
    return [...a.map((text): DiffLine => ({ kind: "out", text })), ...b.map((text): DiffLine => ({ kind: "in", text }))];
  }
  const wide = b.length + 1;
  const common = new Uint16Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i * wide + j] =
        a[i] === b[j]
          ? common[(i + 1) * wide + j + 1]! + 1
          : Math.max(common[(i + 1) * wide + j]!, common[i * wide + j + 1]!);
    }
  }
  const lines: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      lines.push({ kind: "same", text: a[i]! });
      i++;
      j++;
    } else if (i < a.length && (j === b.length || common[(i + 1) * wide + j]! >= common[i * wide + j + 1]!)) {
      lines.push({ kind: "out", text: a[i++]! });
    } else lines.push({ kind: "in", text: b[j++]! });
  }
  return lines;
}
