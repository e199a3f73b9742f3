/** Requests to the API.  A failure is an ApiError that says what failed, in the server's words, with its request id. */

export class ApiError extends Error {
  constructor(
    readonly what: string,
    readonly detail: string,
    readonly status: number,
    readonly requestId: string | null,
  ) {
    super(`${what}: ${detail}`);
  }
}

export async function request<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return send<T>(method, path, body === undefined ? undefined : JSON.stringify(body), signal);
}

async function send<T>(method: string, path: string, body?: string, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method, headers: { accept: "application/json" }, signal: signal ?? null };
  if (body !== undefined) {
    init.body = body;
    init.headers = { accept: "application/json", "content-type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(`/api${path}`, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("no answer", "the server cannot be reached: is `pstp web` running?", 0, null);
  }
  if (!response.ok) throw await problem(response);
  return (await response.json()) as T;
}

export const get = <T>(path: string, signal?: AbortSignal): Promise<T> => request<T>("GET", path, undefined, signal);
export const post = <T>(path: string, body: unknown): Promise<T> => request<T>("POST", path, body);
/** A body that is JSON text already: its numbers are not read and written anew. */
export const postText = <T>(path: string, body: string): Promise<T> => send<T>("POST", path, body);

async function problem(response: Response): Promise<ApiError> {
  const id = response.headers.get("x-request-id");
  try {
    const said = (await response.json()) as { title?: string; detail?: string };
    return new ApiError(said.title ?? response.statusText, said.detail ?? "", response.status, id);
  } catch {
    return new ApiError(response.statusText || "refused", `status ${response.status}`, response.status, id);
  }
}
