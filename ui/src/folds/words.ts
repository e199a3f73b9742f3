/** Numbers and times as people read them. */

const english = new Intl.NumberFormat("en"); // made once: a number a cell, a hundred cells a frame

export function count(n: number): string {
  return english.format(n);
}

export function times(n: number): string {
  return n === 1 ? "once" : `${n} times`;
}

/** A length of time: 12 ms, 3.4 s, 5 min, 2 h, 3 d. */
export function span(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 90_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 129_600_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}

export function ago(ms: number): string {
  return ms < 1000 ? "just now" : `${span(ms)} ago`;
}

/** Numbers as ranges: 0–3, 5, 7–9. */
export function ranges(numbers: readonly number[]): string {
  const sorted = [...numbers].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length; i++) {
    const from = sorted[i]!;
    while (sorted[i + 1] === sorted[i]! + 1) i++;
    parts.push(sorted[i] === from ? `${from}` : `${from}–${sorted[i]}`);
  }
  return parts.join(", ");
}

/** Keeps both ends of a long id. */
export function middle(text: string, max = 28): string {
  const chars = [...text];
  if (chars.length <= max) return text;
  const side = (max - 1) >> 1;
  return `${chars.slice(0, side).join("")}…${chars.slice(-side).join("")}`;
}

/** Indents JSON text without reading its numbers, which may be larger than a JavaScript number holds. */
export function indentJson(text: string): string {
  let out = "";
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (c === '"') {
      const start = i;
      for (i++; i < text.length && text[i] !== '"'; i++) if (text[i] === "\\") i++;
      out += text.slice(start, i + 1);
    } else if (c === "{" || c === "[") {
      const close = /^\s*[}\]]/.exec(text.slice(i + 1, i + 20));
      if (close) {
        out += c + close[0].trim();
        i += close[0].length;
      } else out += `${c}\n${"  ".repeat(++depth)}`;
    } else if (c === "}" || c === "]") out += `\n${"  ".repeat(Math.max(0, --depth))}${c}`;
    else if (c === ",") out += `,\n${"  ".repeat(depth)}`;
    else if (c === ":") out += ": ";
    else if (!/\s/.test(c)) out += c;
  }
  return out;
}

/** Quotes a word for a POSIX shell. */
export function shellQuote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** What an empty screen offers to begin with. */
export const FIRST_TASK = `pstp submit customer-17 mail.send '{"to": "a@example.org"}'`;

export function cli(...words: string[]): string {
  return ["pstp", ...words.map(shellQuote)].join(" ");
}
