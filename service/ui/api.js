// The service's HTTP interface in, answers and Problems out: every call of the page goes through here.

import { askForKey } from './key.js';

const SLOT = 'segserve.key';

/** The service's base URL, whatever page this is and whatever prefix a proxy puts before it. */
export const root = new URL('..', import.meta.url).href;

/** An error of the service (RFC 9457), or `status` 0 where it does not answer; `detail` is for people. */
export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
    this.detail = detail;
  }
}

/** The API key that was given in this tab, or ''. */
export function key() {
  return sessionStorage.getItem(SLOT) ?? '';
}

/** Keep the key for as long as the tab lives. */
export function setKey(value) {
  sessionStorage.setItem(SLOT, value);
}

/**
 * Ask the service; `path` is relative to its root. Gives the Response, or throws a Problem.
 * `onProgress` hears the share of the body that has been sent, 0 to 1. Where a key is needed, people are asked for it.
 */
export async function call(path, { method = 'GET', body, headers = {}, signal, onProgress } = {}) {
  for (;;) {
    const used = key();
    const response = await attempt(path, { method, body, headers: withKey(headers, used), signal, onProgress });
    if (response.ok) return response;
    const problem = await problemOf(response);
    const refused = problem.status === 401 || (problem.status === 403 && problem.code === 'forbidden');
    if (!refused || method === 'DELETE') throw problem;
    if (key() !== used) continue; // another call has asked for it meanwhile
    const given = await askForKey(problem.status === 401 ? 'Whoever runs it can give you one.' : problem.detail);
    if (!given) throw problem;
    setKey(given);
  }
}

/** What `GET /models` lists. */
export async function models() {
  return (await (await call('models')).json()).models;
}

/** One model, as `GET /models/NAME` describes it. */
export async function model(name) {
  return (await call(`models/${encodeURIComponent(name)}`)).json();
}

function withKey(headers, value) {
  return value ? { ...headers, Authorization: `Bearer ${value}` } : headers;
}

async function attempt(path, request) {
  const url = new URL(path, root);
  try {
    return await (request.onProgress && request.body ? upload(url, request) : fetch(url, { ...request, cache: request.method === 'GET' ? 'no-cache' : 'no-store' }));
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, 'no-answer', 'The server does not answer. It may be starting or have stopped: try again in a moment.');
  }
}

async function problemOf(response) {
  const text = await response.text().catch(() => '');
  try {
    const { code, detail, title } = JSON.parse(text);
    return new Problem(response.status, code ?? '', detail || title || `The server answered ${response.status}.`);
  } catch {
    return new Problem(response.status, '', `The server, or a proxy before it, answered ${response.status} ${response.statusText}.`);
  }
}

/** As fetch does, with what fetch lacks: how much has been sent. */
function upload(url, { method, body, headers, signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    request.responseType = 'arraybuffer';
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => resolve(new Response(request.response, {
      status: request.status,
      statusText: request.statusText,
      headers: headersOf(request),
    }));
    request.onerror = () => reject(new TypeError('no answer'));
    request.onabort = () => reject(new DOMException('aborted', 'AbortError'));
    signal?.addEventListener('abort', () => request.abort());
    request.send(body);
  });
}

function headersOf(request) {
  const lines = request.getAllResponseHeaders().trim().split('\r\n').filter(Boolean);
  return new Headers(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]));
}
