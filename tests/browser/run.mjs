// Watches a page of Rung in headless Chromium and prints what a viewer got as one JSON object.
//
//   node tests/browser/run.mjs --url http://127.0.0.1:8080/watch/demo --seconds 20 [--switch 360p,720p] ...
//
// Pictures are read from the screen's side: each test picture carries two strips of 34 blocks across its whole width,
// each 1/12 of its height: at the very bottom the frame counter, above it the moment of drawing (unix time in 1/100 s,
// modulo 2^24). Block 0 is white and block 1 black (references), then 24 bits of value and 8 of CRC-8 (poly 0x07),
// most significant first.

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

const require = createRequire(new URL('../../src/web/package.json', import.meta.url));
const { chromium } = require('playwright-core');

const { values: options } = parseArgs({
  options: {
    url: { type: 'string' },
    seconds: { type: 'string', default: '10' },
    /** Longest wait for the first picture. */
    start: { type: 'string', default: '30' },
    /** Renditions to switch to, evenly spread over the time; 'auto' is one too. */
    switch: { type: 'string', default: '' },
    /** A sound track to choose at half time, by name; and captions to show from the start, by INSTREAM-ID. */
    audio: { type: 'string', default: '' },
    captions: { type: 'string', default: '' },
    screenshot: { type: 'string', default: '' },
    viewport: { type: 'string', default: '1280x800' },
    phone: { type: 'boolean', default: false },
    /** Do not wait for a picture: look at a page without one. */
    idle: { type: 'boolean', default: false },
    browser: { type: 'string', default: process.env.RUNG_CHROMIUM ?? '/usr/bin/chromium' },
  },
});
if (!options.url) throw new Error('--url is needed');

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required', '--mute-audio'];

/** Runs in the page: reads strips, states and sound into `window.probe`. */
function instrument() {
  const probe = (window.probe = {
    frames: { seen: 0, unread: 0, first: null, last: null, skipped: 0, repeated: 0, backward: 0 },
    glass: [], latency: [], states: [], stepMs: [], audio: { rms: 0, decoded: 0 }, tones: [], captions: [],
    // Media time of each picture by its counter, and what the metadata tracks held.
    times: new Map(), cues: new Map(),
  });
  const video = document.querySelector('video');
  const canvas = new OffscreenCanvas(340, 24);
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  pen.imageSmoothingEnabled = false;

  function crc8(bytes) {
    let crc = 0;
    for (const byte of bytes) {
      crc ^= byte;
      for (let n = 0; n < 8; n += 1) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : (crc << 1) & 0xff;
    }
    return crc;
  }
  /** The 24-bit value of one strip, or null. */
  function strip(pixels, row) {
    const light = (block) => {
      let sum = 0;
      for (let dy = -1; dy <= 1; dy += 1) for (let dx = -1; dx <= 1; dx += 1) {
        const at = 4 * ((row + dy) * 340 + block * 10 + 5 + dx);
        sum += pixels[at] + pixels[at + 1] + pixels[at + 2];
      }
      return sum;
    };
    const [white, black] = [light(0), light(1)];
    if (white - black < 9 * 3 * 60) return null;
    let bits = 0n;
    for (let n = 2; n < 34; n += 1) bits = (bits << 1n) | (light(n) > (white + black) / 2 ? 1n : 0n);
    const value = Number(bits >> 8n);
    return crc8([value >> 16, (value >> 8) & 255, value & 255]) === Number(bits & 255n) ? value : null;
  }
  let lastShown = 0;
  function frame(now, meta) {
    video.requestVideoFrameCallback(frame);
    if (!video.videoWidth) return;
    const height = video.videoHeight;
    pen.drawImage(video, 0, (height * 10) / 12, video.videoWidth, height / 6, 0, 0, 340, 24);
    const pixels = pen.getImageData(0, 0, 340, 24).data;
    const counter = strip(pixels, 18);
    const drawn = strip(pixels, 6);
    const f = probe.frames;
    f.seen += 1;
    if (lastShown) probe.stepMs.push(now - lastShown);
    lastShown = now;
    if (counter === null) { f.unread += 1; return; }
    f.first ??= counter;
    if (f.last !== null) {
      if (counter === f.last) f.repeated += 1;
      else if (counter < f.last) f.backward += 1;
      else f.skipped += counter - f.last - 1;
    }
    f.last = counter;
    probe.times.set(counter, meta.mediaTime);
    if (drawn !== null) {
      const hundredths = Math.floor(Date.now() / 10) % 2 ** 24;
      probe.glass.push(((hundredths - drawn + 2 ** 24) % 2 ** 24) / 100);
    }
  }
  video.requestVideoFrameCallback(frame);

  let last = '';
  setInterval(() => {
    for (const track of video.textTracks) {
      if (track.mode !== 'showing') continue;
      // A cue of line 21 is a row of it.
      const words = [...(track.activeCues ?? [])].map((cue) => cue.text.trim()).filter(Boolean).join(' ');
      if (words && probe.captions.at(-1) !== words) probe.captions.push(words);
    }
    const rung = window.rung;
    const mark = `${rung.state} ${rung.session ?? ''} ${rung.level ?? ''}`;
    if (mark !== last) {
      last = mark;
      probe.states.push({ ms: Math.round(performance.now()), state: rung.state, session: rung.session, level: rung.level });
    }
    for (const track of video.textTracks) {
      if (track.kind !== 'metadata') continue;
      for (const cue of track.cues ?? []) {
        const { key, info, data } = cue.value ?? {};
        const [type, id, start] = [cue.type ?? '', cue.id ?? '', cue.startTime];
        const text = info || (typeof data === 'string' ? data : '');
        probe.cues.set([type, id, start, key].join(), { type, id, start, key: key ?? '', text: String(text) });
      }
    }
    if (rung.state === 'live' && rung.latency !== null) probe.latency.push(Number(rung.latency.toFixed(3)));
  }, 100);

  window.listen = () => {
    video.muted = false;
    const context = new AudioContext();
    const meter = context.createAnalyser();
    context.createMediaElementSource(video).connect(meter).connect(context.destination);
    const samples = new Float32Array(meter.fftSize);
    const bands = new Float32Array(meter.frequencyBinCount);
    setInterval(() => {
      meter.getFloatTimeDomainData(samples);
      const rms = Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length);
      probe.audio.rms = Math.max(probe.audio.rms, Number(rms.toFixed(4)));
      meter.getFloatFrequencyData(bands);
      const loudest = bands.reduce((best, level, at) => (level > bands[best] ? at : best), 0);
      if (rms > 0.001) probe.tones.push({ ms: Math.round(performance.now()), hz: Math.round((loudest * context.sampleRate) / meter.fftSize) });
    }, 50);
  };
}

const spread = (list) => {
  const sorted = [...list].sort((a, b) => a - b);
  const at = (q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? null;
  return { count: list.length, min: at(0), p50: at(0.5), p95: at(0.95), max: at(1) };
};

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const browser = await chromium.launch({ executablePath: options.browser, args: FLAGS, headless: true });
try {
  const [width, height] = options.viewport.split('x').map(Number);
  const shape = options.phone ? { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true } : { viewport: { width, height } };
  const page = await (await browser.newContext(shape)).newPage();
  const said = [];
  page.on('console', (m) => { if (m.type() === 'error') said.push(m.text().slice(0, 300)); });
  page.on('pageerror', (e) => said.push(String(e).slice(0, 300)));
  await page.goto(options.url);

  let report = { url: options.url, seconds: Number(options.seconds) };
  if (options.idle) {
    await sleep(report.seconds * 1000);
    report.title = await page.title();
    report.text = (await page.locator('body').innerText()).slice(0, 2000);
  } else {
    await page.evaluate(instrument);
    await page.waitForFunction(() => window.rung.state === 'live', null, { timeout: Number(options.start) * 1000 });
    await page.evaluate(() => window.listen());
    const before = await page.evaluate(() => document.querySelector('video').webkitAudioDecodedByteCount ?? 0);
    if (options.captions) await page.evaluate((id) => window.rung.setCaptions(id), options.captions);
    const targets = options.switch.split(',').filter(Boolean);
    const slice = (report.seconds * 1000) / (targets.length + 1);
    const switches = [];
    let chosen = null;
    if (options.audio) {
      await sleep(slice / 2);
      chosen = await page.evaluate((name) => { window.rung.setAudio(name); return Math.round(performance.now()); }, options.audio);
      await sleep(slice / 2);
    } else {
      await sleep(slice);
    }
    for (const to of targets) {
      const start = Date.now();
      await page.evaluate((name) => window.rung.setLevel(name), to);
      // The picture that the rendition shows has its height; 'auto' may stay where it is.
      const want = to === 'auto' ? null : Number.parseInt(to, 10) || null;
      const shown = ([name, rows]) => name === 'auto' || (window.rung.level === name && (!rows || document.querySelector('video').videoHeight === rows));
      const ok = await page.waitForFunction(shown, [to, want], { timeout: 15000 }).then(() => true, () => false);
      switches.push({ to, ok, took_ms: Date.now() - start });
      await sleep(Math.max(0, slice - (Date.now() - start)));
    }
    const got = await page.evaluate(() => {
      const { hls, ...rung } = window.rung;
      window.probe.audio.decoded = document.querySelector('video').webkitAudioDecodedByteCount ?? 0;
      const video = document.querySelector('video');
      const { times, cues, ...probe } = window.probe;
      // Where pictures lie in media time, by all that were seen: a busy browser shows few, and some of them late.
      const seen = [...times].sort((a, b) => a[0] - b[0]);
      const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
      const step = median(seen.slice(1).map(([n, at], k) => (at - seen[k][1]) / (n - seen[k][0])));
      const first = median(seen.map(([n, at]) => at - n * step));
      probe.cues = [...cues.values()].map((cue) => {
        const picture = Math.round((cue.start - first) / step);
        return { ...cue, picture: Number.isFinite(picture) && picture >= 0 ? picture : null };
      });
      return { rung, probe, size: [video.videoWidth, video.videoHeight] };
    });
    const { rung, probe } = got;
    // A media element that is given up counts from nothing again.
    const decoded = probe.audio.decoded < before ? probe.audio.decoded : probe.audio.decoded - before;
    report = {
      ...report,
      state: rung.state, engine: rung.engine, first_frame_ms: rung.firstFrameMs, size: got.size,
      stalls: rung.stalls, stalled_ms: Math.round(rung.stalledMs), fatal: rung.fatal,
      errors: rung.errors.map((e) => `${e.what}${e.fatal ? ' (fatal)' : ''}`),
      starts: rung.starts, jumps: rung.jumps, target_latency: rung.targetLatency,
      latency: spread(probe.latency), glass_to_glass: spread(probe.glass),
      frames: probe.frames, longest_step_ms: Math.round(Math.max(0, ...probe.stepMs)), shown: rung.frames, dropped: rung.dropped,
      levels: rung.levels, level: rung.level, switches,
      audio: { playing: decoded > 0 && probe.audio.rms > 0.001, decoded_bytes: decoded, rms: probe.audio.rms },
      states: probe.states, cues: probe.cues,
      tracks: { audios: rung.audios, audio: rung.audio, services: rung.services, captions: probe.captions, chosen_ms: chosen, tones: probe.tones },
    };
  }
  report.console = said;
  report.screenshot = options.screenshot;
  if (options.screenshot) {
    await page.mouse.move(300, 300);
    await sleep(150);
    await page.screenshot({ path: options.screenshot, fullPage: options.phone });
  }
  console.log(JSON.stringify(report));
} finally {
  await browser.close();
}
