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
}

export const FOLD_PX = 28;
const FOLD_PX_MIN = 8;
/** What every stretch of work gets before the rest is shared by duration: a task of a millisecond can be seen. */
const WORK_PX_MIN = 3;

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

export class TimeAxis {
  readonly pieces: Piece[];
  readonly width: number;

  /** `spans` in ms, drawn over `width` px.  What lies outside the first and last span is left out. */
  constructor(spans: readonly Span[], width: number, idleMs: number) {
    this.width = width;
    const busy = busySpans(spans, idleMs);
    const gaps = busy.slice(1).map((span, i) => foldPx(span.start - busy[i]!.end, idleMs));
    const wanted = gaps.reduce((sum, px) => sum + px, 0);
    const shrink = wanted > width / 2 ? width / 2 / wanted : 1; // folds take at most half of the picture
    const total = busy.reduce((sum, s) => sum + Math.max(1, s.end - s.start), 0);
    const room = width - wanted * shrink;
    const least = busy.length ? Math.min(WORK_PX_MIN, room / 2 / busy.length) : 0;
    const scale = (room - busy.length * least) / (total || 1);
    this.pieces = [];
    let x = 0;
    busy.forEach((span, i) => {
      const previous = busy[i - 1];
      if (previous) {
        const fold = gaps[i - 1]! * shrink;
        this.pieces.push({ t0: previous.end, t1: span.start, x0: x, x1: x + fold, folded: true });
        x += fold;
      }
      const wide = least + Math.max(1, span.end - span.start) * scale;
      this.pieces.push({ t0: span.start, t1: span.end, x0: x, x1: x + wide, folded: false });
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
