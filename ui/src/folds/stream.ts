/**
 * What is known about the stream, folded from what arrives.  Two faults are told apart: the stream is silent
 * (disconnected), or it speaks but the read model behind it lags (stale).
 */

export type Message =
  | { kind: "open" }
  | { kind: "lost"; retryMs: number }
  | { kind: "heartbeat"; serverMs: number; lagS: number }
  | { kind: "delta"; id: string; events: number; serverMs: number }
  | { kind: "resync" };

export interface StreamState {
  lastHeardMs: number;
  lostSinceMs: number | null;
  retryAtMs: number;
  lagS: number;
  /** Server's clock minus this one's: bars and ages are by the server's. */
  skewMs: number;
  lastId: string;
  /** Events that arrived since the last reconnect while catching up; null when there was none. */
  caughtUp: number | null;
  /** Whoever holds data must load it again. */
  resyncs: number;
}

export type Health = "live" | "late" | "lost" | "stale";

export const LATE_MS = 3000;
export const LOST_MS = 10_000;
export const STALE_S = 5;

export function initial(nowMs: number): StreamState {
  return {
    lastHeardMs: nowMs, lostSinceMs: null, retryAtMs: 0, lagS: 0, skewMs: 0, lastId: "", caughtUp: null, resyncs: 0,
  };
}

export function fold(state: StreamState, message: Message, nowMs: number): StreamState {
  switch (message.kind) {
    case "open":
      return { ...state, lastHeardMs: nowMs, lostSinceMs: null, caughtUp: state.lostSinceMs === null ? null : 0 };
    case "lost":
      return { ...state, lostSinceMs: state.lostSinceMs ?? nowMs, retryAtMs: nowMs + message.retryMs };
    case "heartbeat":
      // The first heartbeat after a resume says that everything missed has been sent.
      return { ...state, lastHeardMs: nowMs, lagS: message.lagS, skewMs: message.serverMs - nowMs };
    case "delta":
      return {
        ...state,
        lastHeardMs: nowMs,
        lastId: message.id,
        skewMs: message.serverMs - nowMs,
        caughtUp: state.caughtUp === null ? null : state.caughtUp + message.events,
      };
    case "resync":
      return { ...state, lastHeardMs: nowMs, lastId: "", caughtUp: null, resyncs: state.resyncs + 1 };
  }
}

export function health(state: StreamState, nowMs: number): Health {
  const silentMs = nowMs - (state.lostSinceMs ?? Math.max(state.lastHeardMs, nowMs - LATE_MS + 1));
  if (state.lostSinceMs !== null && silentMs >= LOST_MS) return "lost";
  if (state.lostSinceMs !== null && silentMs >= LATE_MS) return "late";
  if (state.lagS > STALE_S) return "stale";
  return "live";
}

/** Delay before the nth try to reconnect: 0.5 s, 1, 2, … at most 15 s. */
export function retryDelayMs(tries: number): number {
  return Math.min(15_000, 500 * 2 ** Math.min(tries, 10));
}
