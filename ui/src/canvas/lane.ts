import type { TimeAxis } from "@/folds/axis";
import type { Bar } from "@/folds/lane";
import { lookOf } from "@/folds/states";
import { count, span } from "@/folds/words";

import { context, palette } from "./paint";

export interface LaneView {
  width: number;
  height: number;
  selected: string;
  /** What comes next, right of the work that is done: how many are parked, and where a redrive would land among them. */
  next: { parked: number; ghost: "head" | "tail" | null } | null;
}

/** Room that `next` takes, in px. */
export const NEXT_PX = 168;
const TOP = 24;
const BOTTOM = 24;
const NEXT_SHOWN = 3;

type Color = (name: string) => string;

/** One lane: bars by time with their fencing tokens, folds marked, overlaps in red over everything else. */
export function drawLane(canvas: HTMLCanvasElement, axis: TimeAxis, bars: readonly Bar[], view: LaneView): void {
  const color = palette(canvas);
  const ctx = context(canvas, view.width, view.height);
  const high = view.height - TOP - BOTTOM;
  ctx.font = "500 11px ui-monospace, 'DejaVu Sans Mono', monospace";
  ctx.textBaseline = "middle";
  ctx.fillStyle = color("--bg2");
  ctx.fillRect(0, TOP, axis.width, high);
  folds(ctx, axis, view.height, color);
  for (const bar of bars) if (!bar.overlaps) drawBar(ctx, axis, bar, high, view, color);
  for (const bar of bars) if (bar.overlaps) drawBar(ctx, axis, bar, high, view, color);
  for (const piece of axis.pieces) if (piece.pressed) pressed(ctx, (piece.x0 + piece.x1) / 2, view.height, color);
  if (view.next) next(ctx, Math.round(axis.width), high, view.next, color);
}

function drawBar(ctx: CanvasRenderingContext2D, axis: TimeAxis, bar: Bar, high: number, view: LaneView, color: Color): void {
  const x0 = Math.round(axis.x(bar.startMs));
  // Bars that touch in time keep one pixel of air where they are wide enough to spare it.
  const x1 = Math.round(axis.x(bar.end));
  const wide = Math.max(1, x1 - x0 - (x1 - x0 > 4 ? 1 : 0));
  const look = lookOf(bar.state);
  const y = TOP + 8;
  const tall = high - 16;
  ctx.fillStyle = ctx.strokeStyle = color(look.color);
  if (bar.refused) hollow(ctx, x0, y, wide, tall);
  else if (look.shape === "hatch") hatch(ctx, x0, y, wide, tall);
  else {
    ctx.fillRect(x0, y, wide, tall);
    if (look.shape === "notch" && wide > 8) notch(ctx, x0 + wide, y, tall, color("--bg2"));
  }
  if (bar.overlaps) {
    ctx.fillStyle = ctx.strokeStyle = color("--s-overlap");
    ctx.globalAlpha = 0.3;
    ctx.fillRect(x0, TOP, wide, high);
    ctx.globalAlpha = 1;
    ctx.lineWidth = 2;
    ctx.strokeRect(x0 + 1, TOP + 1, Math.max(1, wide - 2), high - 2);
    ctx.fillText("OVERLAP", x0 + 2, TOP - 8);
  }
  if (bar.taskId === view.selected) {
    ctx.strokeStyle = color("--ink");
    ctx.lineWidth = 2;
    ctx.strokeRect(x0 - 1, y - 3, wide + 2, tall + 6);
  }
  label(ctx, bar, x0, y, wide, tall, color);
}

/** The fencing token, along the bar or, where that is too narrow, down it. */
function label(ctx: CanvasRenderingContext2D, bar: Bar, x0: number, y: number, wide: number, tall: number, color: Color): void {
  if (wide < 13) return;
  const text = `#${shortToken(bar.token)}${bar.attempt > 1 ? ` ×${bar.attempt}` : ""}`;
  const long = ctx.measureText(text).width;
  const inside = !bar.refused && lookOf(bar.state).shape !== "hatch";
  ctx.fillStyle = inside ? color("--bg") : color("--ink");
  if (long <= wide - 8) ctx.fillText(text, x0 + 4, y + tall / 2);
  else if (long <= tall - 10) {
    ctx.save();
    ctx.translate(x0 + wide / 2, y + tall - 5);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText(text, 0, 0);
    ctx.restore();
  }
}

/** Tokens are `epoch · 2^32 + counter`; their counter is enough to tell neighbours apart. */
export function shortToken(token: string): string {
  if (!/^\d+$/.test(token)) return token;
  return (BigInt(token) & 0xffffffffn).toString();
}

function hollow(ctx: CanvasRenderingContext2D, x: number, y: number, wide: number, tall: number): void {
  ctx.lineWidth = 1;
  ctx.strokeRect(x + 0.5, y + 0.5, Math.max(1, wide - 1), tall - 1);
  ctx.fillRect(x, Math.round(y + tall / 2), wide, 1);
}

function hatch(ctx: CanvasRenderingContext2D, x: number, y: number, wide: number, tall: number): void {
  ctx.save();
  ctx.globalAlpha = 0.22;
  ctx.fillRect(x, y, wide, tall);
  ctx.globalAlpha = 1;
  ctx.beginPath();
  ctx.rect(x, y, wide, tall);
  ctx.clip();
  ctx.beginPath();
  for (let at = x - tall; at < x + wide; at += 7) {
    ctx.moveTo(at, y + tall);
    ctx.lineTo(at + tall, y);
  }
  ctx.lineWidth = 2;
  ctx.stroke();
  ctx.restore();
  ctx.fillRect(x, y, wide, 2);
  ctx.fillRect(x, y + tall - 2, wide, 2);
}

function notch(ctx: CanvasRenderingContext2D, x: number, y: number, tall: number, ink: string): void {
  ctx.fillStyle = ink;
  ctx.beginPath();
  ctx.moveTo(x, y + tall / 2 - 7);
  ctx.lineTo(x - 7, y + tall / 2);
  ctx.lineTo(x, y + tall / 2 + 7);
  ctx.fill();
}

/** Times below the work, and what was left out above its mark. */
function folds(ctx: CanvasRenderingContext2D, axis: TimeAxis, height: number, color: Color): void {
  let timeEnds = -1e9;
  let gapEnds = -1e9;
  for (const piece of axis.pieces) {
    if (piece.folded) {
      const x = (piece.x0 + piece.x1) / 2;
      zigzag(ctx, x, height, piece.x1 - piece.x0, color("--s-quiet"));
      const left = span(piece.t1 - piece.t0);
      const long = ctx.measureText(left).width;
      if (x - long / 2 < gapEnds + 10 || x - long / 2 < 0) continue;
      ctx.fillStyle = color("--ink2");
      ctx.fillText(left, x - long / 2, TOP - 9);
      gapEnds = x + long / 2;
    } else if (piece.x0 > timeEnds + 16 && piece.x0 < axis.width - 56) {
      ctx.fillStyle = color("--ink2");
      ctx.fillText(new Date(piece.t0).toLocaleTimeString("en-GB"), piece.x0, height - 10);
      timeEnds = piece.x0 + 56;
    }
  }
}

function zigzag(ctx: CanvasRenderingContext2D, x: number, height: number, room: number, ink: string): void {
  const swing = Math.min(3, room / 4);
  ctx.strokeStyle = ink;
  ctx.globalAlpha = 0.55;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let y = TOP + 4, side = -swing; y <= height - BOTTOM - 4; y += 6, side = -side) ctx.lineTo(x + side, y);
  ctx.stroke();
  ctx.globalAlpha = 1;
}

/** Two strokes across what is drawn shorter than its time. */
function pressed(ctx: CanvasRenderingContext2D, x: number, height: number, color: Color): void {
  ctx.strokeStyle = color("--bg");
  ctx.lineWidth = 2;
  ctx.beginPath();
  for (const side of [-4, 4]) {
    ctx.moveTo(x + side - 5, height - BOTTOM);
    ctx.lineTo(x + side + 5, TOP);
  }
  ctx.stroke();
}

/** Right of "now": the parked line in its order, and the ghost of a redrive at the place where it would land. */
function next(ctx: CanvasRenderingContext2D, from: number, high: number, view: NonNullable<LaneView["next"]>, color: Color): void {
  ctx.fillStyle = color("--ink2");
  ctx.fillRect(from + 5, TOP, 1, high);
  ctx.fillText("now", Math.max(0, from - 6), TOP - 9);
  let x = from + 14;
  if (view.ghost === "head") x = ghost(ctx, x, high, color);
  const shown = Math.min(NEXT_SHOWN, view.parked);
  ctx.strokeStyle = color("--s-quiet");
  ctx.lineWidth = 1;
  for (let i = 0; i < shown; i++, x += 15) ctx.strokeRect(x + 0.5, TOP + 8.5, 11, high - 17);
  if (view.parked > shown) {
    const more = `+${count(view.parked - shown)}`;
    ctx.fillStyle = color("--ink2");
    ctx.fillText(more, x + 2, TOP + high / 2);
    x += ctx.measureText(more).width + 8;
  }
  if (view.ghost === "tail") ghost(ctx, x, high, color);
}

function ghost(ctx: CanvasRenderingContext2D, x: number, high: number, color: Color): number {
  ctx.strokeStyle = ctx.fillStyle = color("--accent");
  ctx.setLineDash([4, 3]);
  ctx.lineWidth = 1.5;
  ctx.strokeRect(x + 1, TOP + 8, 20, high - 16);
  ctx.globalAlpha = 0.15;
  ctx.fillRect(x + 1, TOP + 8, 20, high - 16);
  ctx.globalAlpha = 1;
  ctx.setLineDash([]);
  ctx.fillText("lands here", x, TOP + high + 12);
  return x + 27;
}
