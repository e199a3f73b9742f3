/**
 * One stream for all tabs of a browser: over HTTP/1.1 a browser opens six connections to a server, and the seventh tab
 * would wait for ever.  Tabs get what arrives as it is; this worker keeps the last id and asks again from there.
 */

import { retryDelayMs } from "@/folds/stream";

const scope = self as unknown as SharedWorkerGlobalScope;
const ports = new Set<MessagePort>();
let source: EventSource | null = null;
let lastId = "";
let tries = 0;
let timer: ReturnType<typeof setTimeout> | undefined;

scope.onconnect = (event) => {
  const port = event.ports[0]!;
  ports.add(port);
  port.onmessage = (message: MessageEvent<string>) => {
    if (message.data === "bye") ports.delete(port);
    if (ports.size === 0) close();
  };
  port.start();
  if (!source) open();
  else if (source.readyState === EventSource.OPEN) port.postMessage({ kind: "open" });
};

function open(): void {
  clearTimeout(timer);
  source = new EventSource(`/api/stream${lastId ? `?last_event_id=${encodeURIComponent(lastId)}` : ""}`);
  source.onopen = () => {
    tries = 0;
    tell({ kind: "open" });
  };
  source.onerror = () => {
    close();
    const retryMs = retryDelayMs(tries++);
    tell({ kind: "lost", retryMs });
    timer = setTimeout(open, retryMs);
  };
  for (const kind of ["heartbeat", "delta", "resync"]) {
    source.addEventListener(kind, (event: MessageEvent<string>) => {
      if (kind === "resync") lastId = "";
      else if (event.lastEventId) lastId = event.lastEventId;
      tell({ kind, id: lastId, data: event.data });
    });
  }
}

function close(): void {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function tell(message: unknown): void {
  for (const port of ports) port.postMessage(message);
}
