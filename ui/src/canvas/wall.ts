import { lookOf } from "@/folds/states";
import type { GroupTable } from "@/folds/groups";
import type { WallLayout } from "@/folds/wall";

import { context, palette } from "./paint";

const GLOW_MS = 900;

/** Draws every group as a cell.  Hot ones (changed within GLOW_MS) glow; true if any still does. */
export function drawWall(
  canvas: HTMLCanvasElement, table: GroupTable, layout: WallLayout, width: number, height: number, nowMs: number,
  glow: boolean,
): boolean {
  const color = palette(canvas);
  const ctx = context(canvas, width, height);
  const pitch = layout.cell + layout.gap;
  const { states, parked, touchedMs, done } = table;
  const hot: number[] = [];
  for (let i = 0; i < table.size; i++) {
    const state = states[i]!;
    const x = (i % layout.columns) * pitch;
    const y = Math.floor(i / layout.columns) * pitch;
    ctx.globalAlpha = 1;
    if (state === "idle") ctx.fillStyle = color(done[i] ? "--cell-done" : "--cell-idle");
    else {
      ctx.fillStyle = color(lookOf(state).color);
      // Depth of the line behind the head is shown as strength.
      ctx.globalAlpha = state === "running" || state === "dead_lettered" || state === "blocked" ? 1 : Math.min(1, 0.45 + Math.log2(1 + parked[i]!) / 12);
    }
    ctx.fillRect(x, y, layout.cell, layout.cell);
    if (layout.cell >= 9 && (state === "blocked" || state === "dead_lettered")) cross(ctx, x, y, layout.cell, color("--bg"));
    if (layout.cell >= 9 && state === "paused") pause(ctx, x, y, layout.cell, color("--bg"));
    if (glow && nowMs - touchedMs[i]! < GLOW_MS) hot.push(i);
  }
  for (const i of hot) {
    const left = 1 - (nowMs - touchedMs[i]!) / GLOW_MS;
    const x = (i % layout.columns) * pitch;
    const y = Math.floor(i / layout.columns) * pitch;
    const state = states[i]!;
    ctx.fillStyle = color(state === "idle" ? "--s-ok" : lookOf(state).color);
    ctx.globalAlpha = left * 0.28;
    const far = Math.max(2, Math.round(layout.cell * 0.35));
    ctx.fillRect(x - far, y - far, layout.cell + 2 * far, layout.cell + 2 * far);
    ctx.globalAlpha = left;
    ctx.fillRect(x, y, layout.cell, layout.cell);
  }
  ctx.globalAlpha = 1;
  return hot.length > 0;
}

function cross(ctx: CanvasRenderingContext2D, x: number, y: number, cell: number, ink: string): void {
  ctx.fillStyle = ink;
  const middle = Math.floor(cell / 2) - 1;
  ctx.fillRect(x + 2, y + middle, cell - 4, 2);
}

function pause(ctx: CanvasRenderingContext2D, x: number, y: number, cell: number, ink: string): void {
  ctx.fillStyle = ink;
  const third = Math.floor(cell / 3);
  ctx.fillRect(x + third - 1, y + 2, 2, cell - 4);
  ctx.fillRect(x + 2 * third, y + 2, 2, cell - 4);
}
