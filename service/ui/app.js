// The workbench: what people do in, what they see out. Once the mask is there, all but the downloads happens here.

import { call } from './api.js';
import { Classes } from './classes.js';
import { wordsFor } from './code.js';
import { chosen, choose, listenToDivider, listenToZoom, parts, showScale } from './controls.js';
import { byId, percent } from './dom.js';
import { Downloads } from './downloads.js';
import { listenForFiles } from './inputs.js';
import { LivePanel } from './livepanel.js';
import { Notice } from './notice.js';
import { disagreement, HEAT_STOPS } from './paint.js';
import { Picker } from './picker.js';
import { opened } from './picture.js';
import { listen } from './pointing.js';
import { Readout } from './readout.js';
import { segment } from './result.js';
import { Stage } from './stage.js';
import { warmUp } from './warm.js';

const SOON = 200; // milliseconds

/** The page as a whole: the picture, and what the models saw in it. */
class Workbench {
  constructor() {
    Object.assign(this, { file: null, visible: null, drawing: 0, describing: null, answered() {}, result: null, second: null, share: null });
    this.notice = new Notice(parts('busy', 'progress', 'doing', 'notice'));
    this.stage = new Stage(byId('view'), byId('divider'), (viewport) => showScale(byId('scale'), byId('view'), viewport));
    this.readout = new Readout(byId('readout'), byId('spoken'), byId('stage'));
    this.classes = new Classes(parts('list:classes', 'absent', 'fold', 'filter', 'all', 'none'), () => this.redraw());
    this.downloads = new Downloads(
      { ...parts('list:downloads', 'code', 'copy'), tabs: document.getElementsByName('language') },
      () => this.onScreen(),
      (problem, again) => this.notice.tell(problem, [['Try again', again]]),
    );
    this.picker = new Picker({ onModel: () => this.changeModel(), onOther: () => this.changeOther() });
    const livePanel = parts('panel:live-panel', 'device', 'startButton:live-start', 'keep:live-keep', 'stats:live-stats');
    this.livePanel = new LivePanel(livePanel, this, () => this.picker.model);
    this.listen();
  }

  listen() {
    listenForFiles({ inputs: [byId('file'), byId('camera')], zone: byId('stage') }, (file) => this.open(file));
    listen(this.stage, (info) => this.readout.show(info, this.seen()));
    listenToDivider(this.stage);
    listenToZoom(this.stage, byId('zoom'));
    for (const [button, input] of [['open', 'file'], ['choose', 'file'], ['photo', 'camera']]) {
      byId(button).addEventListener('click', () => byId(input).click());
    }
    byId('photo').hidden = navigator.maxTouchPoints === 0; // elsewhere it would be another "Open picture"
    byId('sample').addEventListener('click', () => this.openSample());
    byId('live').addEventListener('click', () => this.toggleLive());
    byId('live').hidden = !navigator.mediaDevices?.getUserMedia;
    byId('alpha').addEventListener('input', () => this.setOpacity());
    for (const id of ['layout', 'layer', 'marks']) byId(id).addEventListener('change', () => this.redraw());
    byId('heat').querySelector('.ramp').style.backgroundImage = `linear-gradient(to right, ${HEAT_STOPS.join(', ')})`;
  }

  start() {
    return this.attempt(() => this.picker.load(), () => this.start());
  }

  /** Another model: the picture is looked at again. */
  changeModel() {
    this.clear();
    if (this.livePanel.stream) this.livePanel.restart();
    else if (this.file) this.run();
  }

  /** Another model to compare with, or none. */
  changeOther() {
    this.second = null;
    this.share = null;
    if (this.picker.other && chosen('layout') === 'single') choose('layout', 'side');
    if (this.file) this.run(); // which ends the asking of one that is compared no longer
    this.redraw();
  }

  openSample() {
    return this.attempt(async (signal) => {
      const blob = await (await call('ui/sample.webp', { signal })).blob();
      this.open(new File([blob], 'sample.webp', { type: 'image/webp' }));
    }, () => this.openSample());
  }

  /** Look at a picture file. */
  open(file) {
    this.livePanel.stop();
    Object.assign(this, { file, result: null, second: null, share: null });
    const running = this.run(); // first: whatever else is done now takes its time from the net
    this.visible = this.show(file, file, this.answerSoon());
    return running;
  }

  /** Until the answer is there, but not for long: painted with its overlay, a picture takes one frame less. */
  answerSoon() {
    return new Promise((resolve) => {
      this.answered = resolve;
      setTimeout(resolve, SOON);
    });
  }

  /** No result, and nothing said of the last one. */
  forget() {
    Object.assign(this, { result: null, second: null, share: null });
    this.readout.hide();
    byId('summary').textContent = '';
  }

  /** The same, classes without shares, and a bare stage. */
  clear() {
    this.forget();
    if (this.picker.model) this.classes.setModel(this.picker.model);
    this.redraw();
  }

  /** Show what the browser can, by default the file, at the moment; whether it can. */
  async show(file, blob = file, moment = null) {
    const picture = await opened(blob, this.stage.sides());
    if (!picture) {
      if (this.file === file) this.clear(); // the last picture is bare until the server shows this one
      return false;
    }
    await moment;
    if (this.file === file) this.showPicture(picture);
    else URL.revokeObjectURL(picture.url);
    return true;
  }

  /** Ask for what is not there yet: the models, the chosen one's answer, the other one's. */
  run() {
    const { model, other } = this.picker;
    if (!model) return this.start();
    return this.attempt(async (signal) => {
      const { file } = this;
      const started = performance.now();
      if (!this.result) {
        const result = await this.ask(model, signal);
        if (signal.aborted) return;
        this.answered();
        if (!(await this.visible)) {
          const view = await result.view('overlay', { alpha: 0, format: 'jpeg' });
          if (signal.aborted) return;
          this.visible = this.show(file, view);
          await this.visible;
        }
        if (signal.aborted) return;
        if (chosen('layer') === 'confidence') result.idsEvery(64); // what is damaged is told of here
        this.result = result;
        this.draw();
        performance.mark('segserve:overlay');
        const milliseconds = performance.now() - started;
        afterPaint(() => this.tell(result, milliseconds));
      }
      if (!other) return;
      const second = await this.ask(other, signal);
      if (signal.aborted) return;
      this.share = disagreement(this.result, second);
      this.second = second;
      this.redraw();
    }, () => this.run());
  }

  ask(model, signal) {
    const looking = `${model.name} is looking`;
    const onProgress = (share) => !signal.aborted && this.notice.working(...(share < 1 ? ['Sending', share] : [looking]));
    const answer = segment(this.file, model, { signal, onProgress });
    this.notice.working(looking);
    return answer;
  }

  showPicture(picture) {
    this.stage.setPicture(picture);
    this.forget();
    this.redraw();
  }

  /** Do one thing at a time; what goes wrong is told, with `again` as the way out. */
  attempt(work, again) {
    return this.notice.attempt(work, ({ status }) => {
      if (this.result && status !== undefined) this.redraw();
      else this.clear(); // without a status it may be damaged
      if ([413, 415, 422].includes(status)) return [['Open another picture', () => byId('file').click()]];
      return [['Try again', status === 404 ? () => this.start() : again]]; // 404: the models are others than they were
    });
  }

  tell(result, milliseconds) {
    if (this.result !== result) return;
    this.classes.setShares(result.shares());
    byId('summary').textContent = `${result.summary()} (${result.width} × ${result.height}, ${Math.round(milliseconds)} ms)`;
  }

  /** The results that are on the stage. */
  seen() {
    return [this.result, this.second].filter(Boolean);
  }

  redraw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => this.draw());
  }

  /** Show on the stage what the controls say. */
  draw() {
    cancelAnimationFrame(this.drawing);
    const { model, other } = this.picker;
    const [layer, layout] = [chosen('layer'), chosen('layout')];
    const versus = other !== null && this.file !== null;
    const marked = byId('marks').checked && this.result && this.second;
    byId('heat').hidden = layer !== 'confidence';
    if (layer === 'confidence') this.fetchConfidence();
    this.stage.show({
      layout,
      layer,
      left: layout === 'single' || versus ? this.result : null,
      right: versus ? this.second : this.result,
      labels: versus ? [model.name, other.name] : ['picture', model?.name ?? ''],
      opacity: Number(byId('alpha').value),
      isShown: this.classes.isShown,
      marks: marked ? [this.result, this.second] : null,
    });
    this.describing ??= afterPaint(() => this.describe());
  }

  /** Say beside the stage what the controls say. */
  describe() {
    this.describing = null;
    byId('disagreement').textContent = this.share === null ? '' : `They disagree on ${percent(this.share)} of the picture.`;
    this.downloads.refresh();
  }

  fetchConfidence() {
    for (const result of this.seen().filter(({ levels }) => !levels)) {
      result.confidence().then((levels) => {
        if (levels) this.redraw();
        else this.notice.tell({ detail: `${result.model.name} answers without scores: it has no confidence to show.` }, []);
      }, (problem) => this.notice.tell(problem, [['Try again', () => this.redraw()]]));
    }
  }

  setOpacity() {
    const opacity = Number(byId('alpha').value);
    byId('alpha-out').textContent = percent(opacity);
    this.stage.setOpacity(opacity);
    this.downloads.refresh();
  }

  /** What downloads and code are about. */
  onScreen() {
    const { picker: { model }, file } = this;
    return {
      model,
      file,
      result: file && this.result,
      view: chosen('layer') === 'confidence' ? 'confidence' : 'overlay',
      alpha: Number(byId('alpha').value),
      classes: model && wordsFor(model, this.classes.isShown),
    };
  }

  toggleLive() {
    byId('live').setAttribute('aria-expanded', this.livePanel.toggle());
  }

  startLive() {
    this.notice.stop();
    this.file = null;
    this.forget();
    choose('layer', 'classes');
    byId('layer').disabled = true; // a camera's answer has no confidence
    byId('summary').textContent = 'Live.';
    this.redraw();
  }

  showFrame(bitmap, result) {
    this.classes.setShares(result.shares(), this.result !== null);
    this.result = result;
    this.stage.setFrame(bitmap);
    bitmap.close();
    this.draw();
  }

  endLive(problem) {
    byId('layer').disabled = false;
    byId('summary').textContent = '';
    if (problem) this.notice.tell(problem, [['Start again', () => this.livePanel.start()]]);
  }
}

/** Do something once what is drawn now has been painted. */
function afterPaint(act) {
  return requestAnimationFrame(() => requestAnimationFrame(act));
}

const workbench = new Workbench();
workbench.start().then(() => warmUp(() => workbench.file !== null));
