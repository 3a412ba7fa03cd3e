// A camera's frames in, what the net sees in them out: the websocket /stream, as docs/stream.md describes it.

import { Problem, call, key, root } from './api.js';

const SIDE = 960; // pixels of the longer side of what is sent, at most
const QUALITY = 0.8; // of the JPEG
const UNANSWERED = 2; // frames on their way, at most
const UNSENT = 65_536; // bytes that may wait in the browser before another frame is added
const REFUSALS = 5; // in a row, before a stream is given up
const PATIENCE = 1000; // milliseconds after a refusal
const STATS = 1000; // milliseconds between reports
const FRAME = 200; // milliseconds to wait for the camera's next frame; where it shows none, the last is sent again

/** One stream. `onEnd(problem)` hears of an end that `stop` did not make; null: the server has nothing to complain about. */
export class Live {
  constructor({ model, onAnswer, onStats, onEnd }) {
    Object.assign(this, { model, onAnswer, onStats, onEnd });
    this.video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
    this.canvas = document.createElement('canvas');
    this.sent = new Map(); // by number: {frame, at}
    this.number = 0;
    this.refused = 0;
    this.latencies = [];
    this.ended = false;
  }

  /** Begin to send; throws a Problem where the server does not take a stream. */
  async start(mediaStream) {
    const path = `stream?${new URLSearchParams({ model: this.model, output: 'mask' })}`;
    this.socket = await open(path);
    if (this.ended) return this.socket.close();
    this.socket.onmessage = ({ data }) => this.hear(data);
    this.socket.onclose = (event) => this.end(closing(event));
    this.video.srcObject = mediaStream;
    this.video.play().catch(() => {}); // without a picture none is sent
    this.reporting = setInterval(() => this.report(), STATS);
    this.reported = performance.now();
    this.run().catch((error) => this.end(new Problem(0, 'camera', `The camera's picture cannot be read: ${error.message}`)));
  }

  /** End it; nothing more is heard of it. The camera stays on. */
  stop() {
    if (this.ended) return;
    this.ended = true;
    clearInterval(this.reporting);
    this.video.srcObject = null;
    for (const { frame } of this.sent.values()) frame.close();
    this.sent.clear();
    if (this.socket) {
      this.socket.onmessage = null;
      this.socket.onclose = null;
      this.socket.close();
    }
  }

  end(problem) {
    if (this.ended) return;
    this.stop();
    this.onEnd(problem);
  }

  async run() {
    while (!this.ended) {
      if (this.sent.size >= UNANSWERED || this.socket.bufferedAmount > UNSENT) await pause(5);
      else if (this.refused) await pause(PATIENCE).then(() => this.send());
      else await this.send();
    }
  }

  async send() {
    await nextFrame(this.video);
    if (this.ended || !this.video.videoWidth) return;
    const at = performance.now();
    draw(this.video, this.canvas);
    const [frame, picture] = await Promise.all([createImageBitmap(this.canvas), jpeg(this.canvas)]);
    if (this.ended) return frame.close();
    this.sent.set(this.number, { frame, at });
    this.number += 1;
    this.socket.send(picture);
  }

  /** A text says which frame is answered, and the message after it is the mask; or it is a problem. */
  hear(data) {
    if (typeof data !== 'string') return this.answer(data);
    this.said = JSON.parse(data);
    for (const [number, { frame }] of this.sent) {
      if (number >= this.said.frame) break;
      frame.close(); // a newer one took its place
      this.sent.delete(number);
    }
    if (this.said.status) this.refuse(this.said);
  }

  answer(data) {
    const { frame: number } = this.said;
    const { frame, at } = this.sent.get(number);
    this.sent.delete(number);
    this.refused = 0;
    this.latencies.push(performance.now() - at);
    this.onAnswer({ mask: data, frame });
  }

  refuse({ frame: number, status, code, detail }) {
    this.sent.get(number).frame.close();
    this.sent.delete(number);
    this.refused += 1;
    if (this.refused >= REFUSALS) this.end(new Problem(status, code ?? '', detail));
  }

  report() {
    const now = performance.now();
    const count = this.latencies.length;
    const latency = this.latencies.reduce((sum, each) => sum + each, 0) / count;
    if (count) this.onStats({ fps: (1000 * count) / (now - this.reported), latency });
    this.reported = now;
    this.latencies = [];
  }
}

/** An open websocket. A browser does not tell why one is refused; the same address, asked plainly, does. */
async function open(path) {
  for (let tried = key(); ; tried = key()) {
    const socket = await connect(path);
    if (socket) return socket;
    const problem = await call(path).catch((error) => error);
    if (!(problem instanceof Problem) || problem.status !== 426) throw problem;
    if (key() === tried) throw new Problem(0, 'no-stream', 'The live connection does not open: a proxy before the server may not pass websockets.');
  }
}

function connect(path) {
  const url = new URL(path, root);
  url.protocol = url.protocol.replace('http', 'ws');
  const socket = new WebSocket(url, ['segserve', ...(key() ? [`segserve.bearer.${base64url(key())}`] : [])]);
  socket.binaryType = 'arraybuffer';
  return new Promise((resolve) => {
    socket.onopen = () => resolve(socket);
    socket.onclose = () => resolve(null);
  });
}

function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

function closing({ code, reason }) {
  if (code === 1012) return new Problem(0, 'draining', 'The server is about to restart: start again in a moment.');
  if (reason) return new Problem(0, 'closed', `The server has ended the stream: ${reason}.`);
  return new Problem(0, 'no-answer', 'The connection to the server broke: start again in a moment.');
}

function draw(video, canvas) {
  const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
}

function jpeg(canvas) {
  return new Promise((resolve) => {
    canvas.toBlob(resolve, 'image/jpeg', QUALITY);
  });
}

function nextFrame(video) {
  const next = new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
    else requestAnimationFrame(resolve);
  });
  return Promise.race([next, pause(FRAME)]);
}

function pause(milliseconds) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
  });
}
