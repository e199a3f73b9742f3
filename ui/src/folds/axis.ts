/**
 * Time axis of a lane.  Idle stretches are folded to a mark, so that the work fills the picture; a fold is always drawn
 * as one, or two bars around it would look adjacent.  Ten times the idle time makes a fold 12 px wider, up to FOLD_PX.
 */

export interface Span {
  start: number;
  end: number;
}

export interface Piece {
  t0: number;
  t1: number;
  x0: number;
  x1: number;
  folded: boolean;
  /** Drawn shorter than its time, so that the others can be seen: it is marked, too. */
  pressed: boolean;
}

export const FOLD_PX = 28;
const FOLD_PX_MIN = 8;
/** What every stretch of work gets before the rest is shared by duration: a task of a millisecond can be seen. */
const WORK_PX_MIN = 3;
/** What takes so many times the idle time is long; all that is long gets at most half of the room for work. */
const LONG = 12;

function foldPx(gapMs: number, idleMs: number): number {
  return Math.min(FOLD_PX, FOLD_PX_MIN + 12 * Math.log10(gapMs / Math.max(1, idleMs)));
}

/** Busy spans, merged; gaps longer than `idleMs` between them are what gets folded. */
export function busySpans(spans: readonly Span[], idleMs: number): Span[] {
  const sorted = spans.filter((s) => s.end >= s.start).toSorted((a, b) => a.start - b.start);
  const merged: Span[] = [];
  for (const span of sorted) {
    const last = merged.at(-1);
    if (last && span.start - last.end <= idleMs) last.end = Math.max(last.end, span.end);
    else merged.push({ start: span.start, end: span.end });
  }
  return merged;
}

/** Busy spans cut where a long one of `spans` begins and ends. */
function cut(busy: readonly Span[], spans: readonly Span[], idleMs: number): Span[] {
  const marks = spans.filter((s) => s.end - s.start > LONG * idleMs).flatMap((s) => [s.start, s.end]).sort((a, b) => a - b);
  return busy.flatMap((span) => {
    const inside = [span.start, ...marks.filter((at) => at > span.start && at < span.end), span.end];
    return inside.slice(1).map((end, i) => ({ start: inside[i]!, end }));
  });
}

const lengthOf = (spans: readonly Span[]): number => spans.reduce((sum, s) => sum + Math.max(1, s.end - s.start), 0);

export class TimeAxis {
  readonly pieces: Piece[];
  readonly width: number;

  /** `spans` in ms, drawn over `width` px.  What lies outside the first and last span is left out. */
  constructor(spans: readonly Span[], width: number, idleMs: number) {
    this.width = width;
    const busy = cut(busySpans(spans, idleMs), spans, idleMs);
    const gaps = busy.slice(1).map((span, i) => (span.start > busy[i]!.end ? foldPx(span.start - busy[i]!.end, idleMs) : 0));
    const wanted = gaps.reduce((sum, px) => sum + px, 0);
    const shrink = wanted > width / 2 ? width / 2 / wanted : 1; // folds take at most half of the picture
    const room = width - wanted * shrink;
    const least = busy.length ? Math.min(WORK_PX_MIN, room / 2 / busy.length) : 0;
    const shared = room - busy.length * least;
    const long = busy.filter((s) => s.end - s.start > LONG * idleMs);
    const longMs = lengthOf(long);
    const allMs = lengthOf(busy) || 1;
    const press = long.length < busy.length && longMs > allMs / 2;
    const scales = press ? { long: shared / 2 / longMs, short: shared / 2 / (allMs - longMs) } : { long: shared / allMs, short: shared / allMs };
    this.pieces = [];
    let x = 0;
    busy.forEach((span, i) => {
      const previous = busy[i - 1];
      if (previous && span.start > previous.end) {
        const fold = gaps[i - 1]! * shrink;
        this.pieces.push({ t0: previous.end, t1: span.start, x0: x, x1: x + fold, folded: true, pressed: false });
        x += fold;
      }
      const isLong = long.includes(span);
      const wide = least + Math.max(1, span.end - span.start) * (isLong ? scales.long : scales.short);
      this.pieces.push({ t0: span.start, t1: span.end, x0: x, x1: x + wide, folded: false, pressed: press && isLong });
      x += wide;
    });
  }

  /** Where a moment is drawn, in px; before the first piece 0, after the last the width. */
  x(time: number): number {
    const piece = this.find((p) => p.t1, time);
    if (!piece) return this.pieces.length ? this.width : 0;
    if (time <= piece.t0) return piece.x0;
    return piece.x0 + ((time - piece.t0) / Math.max(1, piece.t1 - piece.t0)) * (piece.x1 - piece.x0);
  }

  /** The moment drawn at `x`; undefined if the axis is empty. */
  time(x: number): number | undefined {
    const piece = this.find((p) => p.x1, x) ?? this.pieces.at(-1);
    if (!piece) return undefined;
    const part = Math.min(1, Math.max(0, (x - piece.x0) / Math.max(1e-9, piece.x1 - piece.x0)));
    return piece.t0 + part * (piece.t1 - piece.t0);
  }

  /** First piece whose end is at or after `value`, by binary search. */
  private find(endOf: (piece: Piece) => number, value: number): Piece | undefined {
    let low = 0;
    let high = this.pieces.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (endOf(this.pieces[middle]!) < value) low = middle + 1;
      else high = middle;
    }
    return this.pieces[low];
  }
}
