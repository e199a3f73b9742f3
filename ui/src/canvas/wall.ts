import { lookOf } from "@/folds/states";
import type { GroupTable } from "@/folds/groups";
import type { WallLayout } from "@/folds/wall";

import { context, palette } from "./paint";

const GLOW_MS = 900;
const STEPS = 16;

/**
 * Every group as a cell.  Cells are drawn again only when they look different, and hot ones glow on a layer above, so a
 * frame costs what has changed and not how many groups there are.
 */
export class WallPainter {
  private drawn = new Uint16Array();
  private readonly numbers = new Map<string, number>();
  private layoutKey = "";
  private size = 0;
  private hot: number[] = [];

  /** Cells that changed since the last call; all of them if the layout or the theme did.  Returns how many it drew. */
  cells(canvas: HTMLCanvasElement, table: GroupTable, layout: WallLayout, width: number, height: number, theme: string, nowMs: number): number {
    const ratio = window.devicePixelRatio || 1;
    const key = [layout.cell, layout.gap, layout.columns, width, height, theme, ratio].join();
    const color = palette(canvas);
    let ctx: CanvasRenderingContext2D;
    if (key === this.layoutKey && this.drawn.length >= table.size && this.size <= table.size) ctx = canvas.getContext("2d")!;
    else {
      this.layoutKey = key;
      this.drawn = new Uint16Array(Math.max(1024, 2 * table.size));
      ctx = context(canvas, width, height);
    }
    this.size = table.size;
    this.hot = [];
    let count = 0;
    for (let i = 0; i < table.size; i++) {
      if (nowMs - table.touchedMs[i]! < GLOW_MS) this.hot.push(i);
      const look = this.lookOf(table, i);
      if (look === this.drawn[i]) continue;
      this.drawn[i] = look;
      count++;
      cell(ctx, table.states[i]!, look % (STEPS + 1), ...corner(layout, i), layout.cell, color, table.done[i]! > 0);
    }
    ctx.globalAlpha = 1;
    return count;
  }

  /** The glow of what changed within GLOW_MS; true if any still does. */
  glow(canvas: HTMLCanvasElement, table: GroupTable, layout: WallLayout, width: number, height: number, nowMs: number): boolean {
    const color = palette(canvas);
    const ctx = context(canvas, width, height);
    const far = Math.max(2, Math.round(layout.cell * 0.35));
    this.hot = this.hot.filter((i) => nowMs - table.touchedMs[i]! < GLOW_MS);
    for (const i of this.hot) {
      const left = 1 - (nowMs - table.touchedMs[i]!) / GLOW_MS;
      const [x, y] = corner(layout, i);
      const state = table.states[i]!;
      ctx.fillStyle = color(state === "idle" ? "--s-ok" : lookOf(state).color);
      ctx.globalAlpha = left * 0.28;
      ctx.fillRect(x - far, y - far, layout.cell + 2 * far, layout.cell + 2 * far);
      ctx.globalAlpha = left;
      ctx.fillRect(x, y, layout.cell, layout.cell);
    }
    ctx.globalAlpha = 1;
    return this.hot.length > 0;
  }

  /** A number that differs where the picture does: state, and in steps the depth of the line behind the head. */
  private lookOf(table: GroupTable, i: number): number {
    const state = table.states[i]!;
    const name = state === "idle" && table.done[i] ? "done" : state;
    let number = this.numbers.get(name);
    if (number === undefined) this.numbers.set(name, (number = this.numbers.size + 1));
    return number * (STEPS + 1) + strength(state, table.parked[i]!);
  }
}

function strength(state: string, parked: number): number {
  if (state === "idle" || state === "running" || state === "dead_lettered" || state === "blocked") return STEPS;
  return Math.round(Math.min(1, 0.45 + Math.log2(1 + parked) / 12) * STEPS);
}

function corner(layout: WallLayout, i: number): [number, number] {
  const pitch = layout.cell + layout.gap;
  return [(i % layout.columns) * pitch, Math.floor(i / layout.columns) * pitch];
}

function cell(
  ctx: CanvasRenderingContext2D, state: string, step: number, x: number, y: number, size: number, color: (name: string) => string, done: boolean,
): void {
  ctx.clearRect(x, y, size, size);
  ctx.globalAlpha = step / STEPS;
  ctx.fillStyle = color(state === "idle" ? (done ? "--cell-done" : "--cell-idle") : lookOf(state).color);
  ctx.fillRect(x, y, size, size);
  if (size < 9) return;
  ctx.fillStyle = color("--bg");
  if (state === "blocked" || state === "dead_lettered") ctx.fillRect(x + 2, y + Math.floor(size / 2) - 1, size - 4, 2);
  if (state === "paused") {
    const third = Math.floor(size / 3);
    ctx.fillRect(x + third - 1, y + 2, 2, size - 4);
    ctx.fillRect(x + 2 * third, y + 2, 2, size - 4);
  }
}
