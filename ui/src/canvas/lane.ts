import type { TimeAxis } from "@/folds/axis";
import type { Bar } from "@/folds/lane";
import { lookOf } from "@/folds/states";

import { context, palette } from "./paint";

export interface LaneView {
  width: number;
  height: number;
  selected: string;
  /** Where a redrive would land; null when none is considered. */
  ghost: { atMs: number; label: string } | null;
  nowMs: number;
}

const TOP = 26;
const BOTTOM = 24;

/** One lane: bars by time with their fencing tokens, folds marked, overlaps in red over everything else. */
export function drawLane(canvas: HTMLCanvasElement, axis: TimeAxis, bars: readonly Bar[], view: LaneView): void {
  const color = palette(canvas);
  const ctx = context(canvas, view.width, view.height);
  const high = view.height - TOP - BOTTOM;
  ctx.font = "500 11px ui-monospace, 'DejaVu Sans Mono', monospace";
  ctx.textBaseline = "middle";
  ctx.fillStyle = color("--bg2");
  ctx.fillRect(0, TOP, view.width, high);
  folds(ctx, axis, view.height, color);
  for (const bar of bars) if (!bar.overlaps) drawBar(ctx, axis, bar, high, view, color);
  for (const bar of bars) if (bar.overlaps) drawBar(ctx, axis, bar, high, view, color);
  if (view.ghost) ghost(ctx, axis.x(view.ghost.atMs), view.ghost.label, high, view.width, color);
}

type Color = (name: string) => string;

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

function label(ctx: CanvasRenderingContext2D, bar: Bar, x0: number, y: number, wide: number, tall: number, color: Color): void {
  const text = `#${shortToken(bar.token)}`;
  if (wide < 22) return;
  const inside = !bar.refused && lookOf(bar.state).shape !== "hatch";
  ctx.fillStyle = inside ? color("--bg") : color("--ink");
  const fits = ctx.measureText(text).width <= wide - 8;
  if (fits) ctx.fillText(text, x0 + 4, y + tall / 2);
  if (bar.attempt > 1 && wide > 34 && fits) {
    ctx.fillText(`×${bar.attempt}`, x0 + 4, y + tall / 2 + 14);
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

function folds(ctx: CanvasRenderingContext2D, axis: TimeAxis, height: number, color: Color): void {
  let lastLabel = -1e9;
  for (const piece of axis.pieces) {
    if (piece.folded) {
      zigzag(ctx, (piece.x0 + piece.x1) / 2, height, color("--s-quiet"));
    } else if (piece.x0 - lastLabel > 76) {
      ctx.fillStyle = color("--ink2");
      ctx.fillText(new Date(piece.t0).toISOString().slice(11, 19), piece.x0 + 2, height - 10);
      lastLabel = piece.x0;
    }
  }
}

function zigzag(ctx: CanvasRenderingContext2D, x: number, height: number, ink: string): void {
  ctx.strokeStyle = ink;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let y = TOP, side = -3; y <= height - BOTTOM; y += 6, side = -side) ctx.lineTo(x + side, y);
  ctx.stroke();
}

function ghost(ctx: CanvasRenderingContext2D, at: number, text: string, high: number, width: number, color: Color): void {
  const x = Math.min(Math.round(at), width - 64);
  ctx.strokeStyle = ctx.fillStyle = color("--accent");
  ctx.setLineDash([4, 3]);
  ctx.lineWidth = 1.5;
  ctx.strokeRect(x + 1, TOP + 8, 60, high - 16);
  ctx.setLineDash([]);
  ctx.fillText(text, Math.max(0, Math.min(x, width - ctx.measureText(text).width)), TOP - 8);
}
