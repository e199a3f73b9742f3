/** Layout of the wall: every group one square cell, as large as fits, in reading order. */

export interface WallLayout {
  cell: number;
  gap: number;
  columns: number;
  rows: number;
}

const CELL_MAX = 26;

/** Largest whole-pixel cell with which `count` cells fit into `width` × `height` px.  Never smaller than 2 px. */
export function wallLayout(count: number, width: number, height: number): WallLayout {
  for (let pitch = CELL_MAX; pitch > 2; pitch--) {
    const columns = Math.max(1, Math.floor(width / pitch));
    const rows = Math.ceil(count / columns);
    if (rows * pitch <= height) return { cell: pitch - gapOf(pitch), gap: gapOf(pitch), columns, rows };
  }
  const columns = Math.max(1, Math.floor(width / 2));
  return { cell: 2, gap: 0, columns, rows: Math.ceil(count / columns) };
}

function gapOf(pitch: number): number {
  return pitch >= 12 ? 2 : pitch >= 4 ? 1 : 0;
}

/** Index of the cell at a point, or -1 (also in gaps' right half, and behind the last one). */
export function cellAt(layout: WallLayout, count: number, x: number, y: number): number {
  const pitch = layout.cell + layout.gap;
  const column = Math.floor(x / pitch);
  if (x < 0 || y < 0 || column >= layout.columns) return -1;
  const index = Math.floor(y / pitch) * layout.columns + column;
  return index < count ? index : -1;
}
