// A camera in, frames with what the net sees in them out: starts and stops, and says how fast it is.

import { Problem } from './api.js';
import { parseGrey } from './png.js';
import { Result } from './result.js';

const WIDTH = 640; // pixels to ask the camera for: as much as nets look at, and little to send

/**
 * The panel of the live camera: `elements` are panel, device, startButton, keep and stats. Of `stage` it calls `startLive`,
 * `showFrame(bitmap, result)` for each answer, `open(file)` with a frame to keep, `endLive(problem or null)`.
 */
export class LivePanel {
  constructor(elements, stage, currentModel) {
    Object.assign(this, elements, { stage, currentModel });
    this.live = null;
    this.stream = null;
    this.attempt = null; // what was started last and not stopped since
    this.startButton.addEventListener('click', () => (this.stream ? this.stop() : this.start()));
    this.keep.addEventListener('click', () => this.keepFrame());
    this.device.addEventListener('change', () => this.stream && this.restart());
  }

  /** Show or hide the panel, which stops the camera; whether it is shown then. */
  toggle() {
    this.panel.hidden = !this.panel.hidden;
    if (this.panel.hidden) this.stop();
    else this.startButton.focus();
    return !this.panel.hidden;
  }

  async start() {
    this.startButton.disabled = true;
    this.stage.startLive();
    const attempt = {};
    this.attempt = attempt;
    const isStopped = () => this.attempt !== attempt;
    try {
      await this.open(isStopped);
    } catch (error) {
      if (!isStopped()) this.stop(error instanceof Problem ? error : cameraProblem(error));
    } finally {
      this.startButton.disabled = false;
    }
  }

  /** Asking for the camera takes as long as people take: `isStopped()` says whether it is still wanted. */
  async open(isStopped) {
    const { Live } = await import('./live.js');
    const deviceId = this.device.value ? { exact: this.device.value } : undefined;
    const wanted = { deviceId, width: { ideal: WIDTH }, facingMode: deviceId ? undefined : { ideal: 'environment' } };
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    if (isStopped()) {
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    this.stream = stream;
    stream.getVideoTracks()[0].addEventListener('ended', () => this.stream === stream && this.stop(cameraProblem({ name: 'ended' })));
    await this.listDevices(stream);
    if (isStopped()) return;
    const model = this.currentModel();
    const live = new Live({
      model: model.name,
      onAnswer: (answer) => this.show(model, answer),
      onStats: ({ fps, latency }) => {
        if (this.live === live) this.stats.textContent = `${fps.toFixed(1)} frames a second, ${Math.round(latency)} ms each`;
      },
      onEnd: (problem) => this.live === live && this.stop(problem),
    });
    this.live = live;
    await live.start(stream);
    if (!isStopped()) this.startButton.textContent = 'Stop';
  }

  show(model, { mask, frame }) {
    const canvas = Object.assign(document.createElement('canvas'), { width: frame.width, height: frame.height });
    canvas.getContext('2d').drawImage(frame, 0, 0);
    this.last = canvas;
    this.keep.disabled = false;
    this.stage.showFrame(frame, new Result(model, parseGrey(mask)));
  }

  /** The newest frame becomes a picture like any other. */
  async keepFrame() {
    const blob = await new Promise((resolve) => {
      this.last.toBlob(resolve, 'image/jpeg', 0.95);
    });
    this.stage.open(new File([blob], 'frame.jpg', { type: 'image/jpeg' }));
  }

  /** The camera goes off; `problem` says why, where it was not wanted. */
  stop(problem = null) {
    const running = this.attempt !== null;
    this.attempt = null;
    this.live?.stop();
    this.stream?.getTracks().forEach((track) => track.stop());
    this.live = null;
    this.stream = null;
    this.startButton.textContent = 'Start';
    this.keep.disabled = true;
    if (running || problem) this.stage.endLive(problem);
  }

  /** Another camera or another model. */
  restart() {
    if (!this.stream) return;
    this.stop();
    this.start();
  }

  async listDevices(stream) {
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === 'videoinput');
    const chosen = this.device.value || stream.getVideoTracks()[0].getSettings().deviceId;
    this.device.replaceChildren(...cameras.map(({ label, deviceId }, index) => new Option(label || `Camera ${index + 1}`, deviceId)));
    if (cameras.some(({ deviceId }) => deviceId === chosen)) this.device.value = chosen;
  }
}

function cameraProblem(error) {
  const why = {
    NotAllowedError: 'The browser may not use the camera: allow it for this page (in the address bar), then start again.',
    NotFoundError: 'No camera was found: connect one, or open a picture.',
    NotReadableError: 'The camera is used by another program: close that, then start again.',
    ended: 'The camera was switched off or unplugged: start again when it is back.',
  };
  return new Problem(0, 'camera', why[error.name] ?? `The camera does not start: ${error.message || error.name}.`);
}
