/** Answers /api from made-up groups, so that screens can be worked on with no system running. */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Plugin } from "vite";

const COUNT = Number(process.env.PSTP_FIXTURE_GROUPS ?? 4044);
const HEAD = Date.now();
const STATES = ["idle", "idle", "idle", "ready", "running", "running", "dispatched", "idle"];
const ids = Array.from({ length: COUNT }, (_, i) => `N${(10000 + ((i * 7919) % 89999)).toString(36).toUpperCase()}-${i}`);
const states = ids.map((_, i) => (i % 397 === 5 ? "retrying" : i % 911 === 3 ? "blocked" : i % 613 === 9 ? "paused" : STATES[(i * 31) % 8]!));
const parked = ids.map((_, i) => (states[i] === "idle" ? 0 : (i * 37) % 220));
const done = ids.map((_, i) => (i * 13) % 90);
const history = Array.from({ length: 120 }, (_, i) => Math.round(1900 + 500 * Math.sin(i / 9) + ((i * 7919) % 300)));

function overview(): object {
  history.push(Math.round(2000 + Math.random() * 700));
  history.shift();
  const n = (state: string): number => states.filter((one) => one === state).length;
  return {
    throughput: history.at(-1), ready: n("ready"), running: n("running"), parked: parked.reduce((a, b) => a + b, 0),
    failing: n("retrying"), deadLetters: 14, groups: COUNT, oldestMs: Date.now() - 43_000, lagS: 0.2, workers: 3, slots: 96,
    slotsUsed: 71, schedulers: 2, cluster: "fixtures", verify: { overlaps: 0, executions: 336_776, begun: 336_778, atMs: Date.now() - 4000 }, history,
  };
}

function executions(seed: number): object[] {
  let at = HEAD - 60_000;
  return Array.from({ length: 46 }, (_, i) => {
    const long = 350 + ((i * 7919 + seed * 31) % 1400);
    const state = i === 45 ? "running" : i === 23 ? "dead_lettered" : i === 31 || i === 32 ? "retrying" : "succeeded";
    const startMs = at + (i % 15 === 14 ? 9000 : 6);
    at = startMs + long;
    return {
      taskId: `3-${1000 + i}`, type: "flight.log", state, attempt: i === 33 ? 3 : i === 32 ? 2 : 1, token: String(12884901888n + BigInt(400 + i * 3)),
      worker: `worker-${(i % 3) + 1}`, startMs, endMs: state === "running" ? null : at, refused: i === 12,
    };
  });
}

function detail(id: string): object {
  const runs = executions(id.length);
  return {
    group: id, state: "running", partition: 7, older: null, groupState: '{"flights":112,"miles":98230,"last":{"from":"JFK","to":"SFO","id":9007199254740993}}', executions: runs,
    parked: Array.from({ length: 40 }, (_, i) => ({ taskId: `3-${1046 + i}`, type: "flight.log", state: "parked", attempt: 0, sequence: String(900 + i) })),
    explanation: {
      phase: "running", head: { taskId: "3-1045", type: "flight.log", state: "running", attempt: 2, worker: "worker-1", sinceMs: Date.now() - 4300 },
      parked: 40, limiter: null, expectedMs: Date.now() + 1800,
    },
  };
}

function task(id: string): object {
  const steps = ["parked", "dispatched", "running", "retrying", "dispatched", "running", "succeeded"];
  return {
    taskId: id, group: ids[3], type: "flight.log", state: "succeeded", attempt: 2, sequence: "4294967311", payload: '{"carrier":"UA","flight":1545,"big":90071992547409931}', payloadCut: false,
    result: '{"rows":12}', error: { type: "TimeoutError", message: "no answer from upstream in 5 s", traceback: "Traceback (most recent call last):\n  …" }, progress: null, note: null, worker: "worker-2", token: "12884902300",
    events: steps.map((state, i) => ({ atMs: HEAD - 9000 + i * 800, state, kind: "task", attempt: i > 3 ? 2 : 1, worker: i > 1 ? "worker-2" : null, reason: state === "retrying" ? "failed" : null, note: null, partition: 3, offset: String(88100 + i), error: state === "retrying" ? "TimeoutError: no answer from upstream in 5 s" : null })),
  };
}

const REASONS = ["attempts_spent", "attempts_spent", "timeout", "invalid_payload", "worker_lost"];
const letters = Array.from({ length: 14 }, (_, i) => ({
  taskId: `3-${400 + i}`, sequence: String(4294967296 + i), payloadCut: false, masked: false, redrivable: true, group: ids[i * 17], type: "flight.log", reason: REASONS[i % 5], error: i % 5 === 2 ? "not done within 30 s" : "ValueError: tail number is empty", atMs: HEAD - i * 61_000, attempt: 5, payload: '{"carrier":"UA","flight":1545,"tailnum":"","origin":"EWR","dest":"IAH"}',
}));

function members(): object[] {
  const base = { host: "host-a", version: "0.1.0", atMs: Date.now() };
  return [1, 2, 3].map((n) => ({ ...base, instance: `worker-${n}`, role: "worker", pid: 400 + n, partitions: [n, n + 3], slots: 32, slotsUsed: 17 + n * 4, types: ["flight.log"], running: [{ taskId: `3-104${n}`, group: ids[n], type: "flight.log", sinceMs: Date.now() - 700 * n }] }) as object)
    .concat([1, 2].map((n) => ({ ...base, instance: `scheduler-${n}`, role: "scheduler", pid: 500 + n, partitions: [1, 2, 3, 4, 5, 6], slots: 0, slotsUsed: 0, types: [], running: [] })));
}

function stream(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  let id = 0;
  const say = (event: string, data: object): void => void response.write(`event: ${event}\nid: ${++id}\ndata: ${JSON.stringify(data)}\n\n`);
  say("heartbeat", { server_ms: Date.now(), lag_s: 0.2 });
  const timer = setInterval(() => {
    const groups = Array.from({ length: 60 }, () => {
      const i = Math.floor(Math.random() * COUNT);
      if (!["blocked", "paused", "retrying"].includes(states[i]!)) states[i] = ["idle", "running", "ready", "dispatched"][Math.floor(Math.random() * 4)]!;
      done[i]!++;
      return { group: ids[i], state: states[i], parked: parked[i], done: done[i], sinceMs: Date.now() };
    });
    say("delta", { server_ms: Date.now(), events: 60, groups, overview: overview() });
    say("heartbeat", { server_ms: Date.now(), lag_s: 0.2 });
  }, 250);
  response.on("close", () => clearInterval(timer));
}

export function fixtures(): Plugin {
  return {
    name: "fixtures",
    configureServer(server) {
      server.middlewares.use("/api", (request: IncomingMessage, response: ServerResponse) => {
        const url = new URL(request.url ?? "/", "http://fixtures");
        const id = url.searchParams.get("id") ?? "";
        if (url.pathname === "/stream") return stream(response);
        const answers: Record<string, () => unknown> = {
          "/overview": overview,
          "/groups/columns": () => ({ ids, states, parked, done, sinceMs: ids.map(() => HEAD) }),
          "/groups/detail": () => detail(id),
          "/tasks/detail": () => task(id),
          "/dead-letters": () => ({ items: letters, next: null, reasons: REASONS.reduce<Record<string, number>>((all, one, i) => ({ ...all, [one]: (all[one] ?? 0) + letters.filter((_, n) => n % 5 === i).length }), {}) }),
          "/members": () => ({ items: members(), leaseS: 10 }),
        };
        const answer = answers[url.pathname] ?? (() => ({ commandId: "c", outcome: "done", partition: 7, offset: "1204331", refusal: null }));
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify(answer()));
      });
    },
  };
}
