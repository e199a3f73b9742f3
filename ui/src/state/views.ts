/** Views of the groups that this browser keeps: a name, and what stands in the address. */

import { ref } from "vue";

export interface View {
  name: string;
  query: Record<string, string>;
}

const KEY = "pstp.views";
export const VIEWS_MAX = 50;
export const views = ref<View[]>(read());

export function saveView(name: string, query: Record<string, string>): void {
  views.value = [...views.value.filter((view) => view.name !== name), { name, query }].slice(-VIEWS_MAX);
  localStorage.setItem(KEY, JSON.stringify(views.value));
}

export function dropView(name: string): void {
  views.value = views.value.filter((view) => view.name !== name);
  localStorage.setItem(KEY, JSON.stringify(views.value));
}

function read(): View[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? (found as View[]).filter((view) => typeof view?.name === "string" && typeof view.query === "object") : [];
  } catch {
    return [];
  }
}
