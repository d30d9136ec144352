// Plays a channel with players that are not Rung's page, in headless Chromium, and prints what each got as one JSON object.
//
//   node tests/browser/players.mjs --url http://127.0.0.1:8080/live/demo/index.m3u8 --seconds 60 [--players hls.js,shaka]
//
// Every player has its own page with hls.js or Shaka as they come (only low latency is asked for where it is not the
// default), and switches to another rendition every --every seconds. A stall is a playhead that stands for 0.25 s or longer
// while it should move. Latency is the page's clock less the playhead's PROGRAM-DATE-TIME. Where the browser's decoder gives
// up, ffmpeg is given the very bytes that the page gave the browser: `given` is what it says of them, whose init section
// they have in front and whose media follow, by what the origin serves.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

const require = createRequire(new URL('../../src/web/package.json', import.meta.url));
const { chromium } = require('playwright-core');

const { values: options } = parseArgs({
  options: {
    /** Of the multivariant playlist. */
    url: { type: 'string' },
    seconds: { type: 'string', default: '25' },
    players: { type: 'string', default: 'hls.js,shaka' },
    /** Seconds between two switches. */
    every: { type: 'string', default: '20' },
    /** Longest wait for the first picture, seconds. */
    start: { type: 'string', default: '30' },
    browser: { type: 'string', default: process.env.RUNG_CHROMIUM ?? '/usr/bin/chromium' },
  },
});
if (!options.url) throw new Error('--url is needed');

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required', '--mute-audio',
  '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows'];

const PLAYERS = { 'hls.js': 'hls.js/dist/hls.min.js', shaka: 'shaka-player/dist/shaka-player.compiled.js' };

/** Runs in the page: keeps the pictures that the player gave the browser since the last init section but one. */
function keep() {
  const kept = (window.kept = []);
  const add = MediaSource.prototype.addSourceBuffer;
  MediaSource.prototype.addSourceBuffer = function (type) {
    const buffer = add.call(this, type);
    buffer.isVideo = type.startsWith('video/');
    return buffer;
  };
  const append = SourceBuffer.prototype.appendBuffer;
  SourceBuffer.prototype.appendBuffer = function (data) {
    if (this.isVideo) {
      const bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
      const init = String.fromCharCode(...bytes.subarray(4, 8)) === 'ftyp';
      if (init) kept.splice(0, Math.max(0, kept.findLastIndex((one) => one.init)));
      kept.push({ init, bytes: bytes.slice() });
      // Between two switches: some 20 s of a ladder's top rendition.
      while (kept.length > 400) kept.splice(1, 1);
    }
    return append.call(this, data);
  };
  window.given = async () => {
    const runs = [];
    for (const { init, bytes } of kept) {
      if (init) runs.push([]);
      runs.at(-1)?.push(bytes);
    }
    const text = (bytes) => new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result.slice(reader.result.indexOf(',') + 1));
      reader.readAsDataURL(new Blob([bytes]));
    });
    return Promise.all(runs.map((run) => Promise.all(run.map(text))));
  };
}

/** Runs in the page: what both players have in common. */
function watch() {
  const video = document.querySelector('video');
  const probe = (window.probe = {
    playing: false, stalls: [], latency: [], ahead: [], gaps: 0, samples: 0, errors: [], fatal: 0, note: {},
  });
  probe.error = (what, fatal) => {
    if (fatal) probe.fatal += 1;
    if (probe.errors.length < 200) probe.errors.push({ at: Math.round(performance.now()), what, fatal });
  };
  video.addEventListener('error', () => probe.error(`media element: ${video.error?.message || video.error?.code}`, true));
  let moved = performance.now();
  let stalled = null;
  let last = 0;
  let tick = 0;
  let ticked = performance.now();
  setInterval(() => {
    const now = performance.now();
    // A page that gets no time to look has seen no stall.
    const late = now - ticked > 250;
    ticked = now;
    if (!probe.playing) {
      if (video.currentTime > 0 && !video.paused && video.readyState >= 3) probe.playing = true;
      [last, moved] = [video.currentTime, now];
      return;
    }
    if (video.currentTime !== last || late) {
      if (stalled && video.currentTime !== last) {
        stalled.ms = Math.round(now - stalled.since);
        stalled = null;
      }
      [last, moved] = [video.currentTime, now];
    } else if (!stalled && now - moved >= 250) {
      stalled = { at: Math.round(moved), since: moved, ms: null, ready: video.readyState };
      probe.stalls.push(stalled);
    }
    tick += 1;
    if (tick % 4) return;
    probe.samples += 1;
    const buffered = video.buffered;
    let ahead = 0;
    let behindGap = false;
    for (let n = 0; n < buffered.length; n += 1) {
      if (buffered.start(n) <= video.currentTime + 0.1 && buffered.end(n) >= video.currentTime) ahead = buffered.end(n) - video.currentTime;
      else if (buffered.start(n) > video.currentTime + 0.1) behindGap = true;
    }
    if (behindGap) probe.gaps += 1;
    probe.ahead.push(Number(ahead.toFixed(3)));
    const date = window.dateNow();
    if (date) probe.latency.push(Number(((Date.now() - date) / 1000).toFixed(3)));
  }, 50);
  window.report = () => {
    const quality = video.getVideoPlaybackQuality();
    if (stalled) stalled.ms = Math.round(performance.now() - stalled.since);
    return {
      ...probe, stalls: probe.stalls.map(({ at, ms, ready }) => ({ at, ms, ready })), paused: video.paused, error: undefined,
      frames: quality.totalVideoFrames, dropped: quality.droppedVideoFrames, rows: video.videoHeight, time: video.currentTime,
      audio: video.webkitAudioDecodedByteCount ?? 0, ...window.more(),
    };
  };
}

/** Runs in the page: hls.js. */
async function playWithHls(url) {
  const video = document.querySelector('video');
  const hls = new window.Hls();
  const counts = {};
  hls.on(window.Hls.Events.ERROR, (_, data) => {
    counts[data.details] = (counts[data.details] ?? 0) + 1;
    window.probe.error(`${data.details}: ${data.error?.message ?? data.reason ?? ''} ${data.response?.code ?? ''}`.trim(), data.fatal);
  });
  window.dateNow = () => hls.playingDate?.getTime() ?? null;
  window.more = () => ({
    version: window.Hls.version, counts, target: hls.targetLatency, bandwidth: Math.round(hls.bandwidthEstimate),
    lowLatency: hls.latestLevelDetails?.partTarget > 0,
  });
  window.rows = () => [...new Set(hls.levels.map((l) => l.height))];
  window.choose = (rows) => { hls.nextLevel = hls.levels.findIndex((l) => l.height === rows); };
  hls.loadSource(url);
  hls.attachMedia(video);
  await new Promise((done) => hls.on(window.Hls.Events.MANIFEST_PARSED, done));
  await video.play();
}

/** Runs in the page: Shaka. */
async function playWithShaka(url) {
  const video = document.querySelector('video');
  const { shaka } = window;
  shaka.polyfill.installAll();
  const player = new shaka.Player();
  const counts = {};
  const names = Object.fromEntries(Object.entries(shaka.util.Error.Code).map(([name, code]) => [code, name]));
  const note = (error) => {
    const what = names[error.code] ?? String(error.code ?? error);
    counts[what] = (counts[what] ?? 0) + 1;
    window.probe.error(`${what} ${JSON.stringify(error.data ?? '').slice(0, 160)}`, error.severity === shaka.util.Error.Severity.CRITICAL);
  };
  player.addEventListener('error', (event) => note(event.detail));
  player.configure({ streaming: { lowLatencyMode: true } });
  await player.attach(video);
  // What Shaka tries again by itself it does not tell as an error: here it counts as one that is not fatal.
  player.getNetworkingEngine().addEventListener('retry', (event) => note(event.error ?? event));
  window.dateNow = () => player.getPlayheadTimeAsDate()?.getTime() ?? null;
  window.more = () => {
    const stats = player.getStats();
    return {
      version: shaka.Player.version, counts, target: null, bandwidth: Math.round(stats.estimatedBandwidth),
      own: { gapsJumped: stats.gapsJumped, stallsDetected: stats.stallsDetected, bufferingTime: stats.bufferingTime },
      lowLatency: player.isLive() && player.getConfiguration().streaming.lowLatencyMode,
    };
  };
  window.rows = () => [...new Set(player.getVariantTracks().map((t) => t.height))].sort((a, b) => b - a);
  window.choose = (rows) => {
    player.configure('abr.enabled', false);
    player.selectVariantTrack(player.getVariantTracks().find((t) => t.height === rows), false);
  };
  await player.load(url).catch((error) => { note(error); throw error; });
  await video.play();
}

const spread = (list) => {
  const sorted = [...list].sort((a, b) => a - b);
  const at = (q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? null;
  return { count: list.length, min: at(0), p50: at(0.5), p95: at(0.95), max: at(1) };
};

/** Init section and listed media of each of the origin's renditions, by the name of its playlist. */
async function served(url) {
  const bytes = async (at) => Buffer.from(await (await fetch(at)).arrayBuffer());
  const lines = async (at) => String(await bytes(at)).split('\n');
  const uri = (line) => line.match(/URI="([^"]+)"/)[1];
  const names = new Set((await lines(url)).filter((line) => line && !line.startsWith('#')));
  return Promise.all([...names].map(async (name) => {
    const at = new URL(name, url);
    const list = await lines(at);
    const ended = list.findLastIndex((line) => line && !line.startsWith('#'));
    const media = list.filter((line, n) => line && !line.startsWith('#')
      || n > ended && line.startsWith('#EXT-X-PART:') && !line.includes('GAP=YES'));
    const parts = await Promise.all(media.map((line) => bytes(new URL(line.startsWith('#') ? uri(line) : line, at))));
    const map = list.findLast((line) => line.startsWith('#EXT-X-MAP'));
    return { name, init: await bytes(new URL(uri(map), at)), media: Buffer.concat(parts) };
  }));
}

/** What ffmpeg says of an init section and the media behind it, and which renditions they are of. */
function judge(run, renditions) {
  const [init, ...media] = run.map((one) => Buffer.from(one, 'base64'));
  const input = Buffer.concat([init, ...media]);
  const words = ['-v', 'error', '-xerror', '-i', '-', '-f', 'null', '-'];
  const { status, stderr } = spawnSync('ffmpeg', words, { input, timeout: 60_000 });
  const own = renditions.filter((rendition) => rendition.init.equals(init)).map((rendition) => rendition.name);
  const owners = media.map((one) => renditions.filter((rendition) => rendition.media.includes(one)).map((rendition) => rendition.name));
  return {
    bytes: input.length, clean: status === 0 && stderr.length === 0, said: String(stderr).slice(0, 500),
    init: own,
    media: [...new Set(owners.flat())],
    // Pieces that other renditions serve and the init section's own does not.
    foreign: owners.filter((names) => names.length && !names.some((name) => own.includes(name))).length,
  };
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Pages of loopback, so that they may ask the origin on loopback. */
function serve() {
  const server = createServer((request, response) => {
    if (!PLAYERS[request.url.slice(1)]) return response.writeHead(404).end();
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' });
    return response.end('<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><video muted playsinline width="320"></video>');
  });
  return new Promise((done) => server.listen(0, '127.0.0.1', () => done(server)));
}

async function play(browser, site, name) {
  const page = await (await browser.newContext({ viewport: { width: 400, height: 300 } })).newPage();
  const said = [];
  page.on('console', (m) => { if (m.type() === 'error') said.push(m.text().slice(0, 300)); });
  page.on('pageerror', (e) => said.push(String(e).slice(0, 300)));
  await page.goto(`http://127.0.0.1:${site.address().port}/${name}`);
  await page.addScriptTag({ content: readFileSync(require.resolve(PLAYERS[name]), 'utf8') });
  await page.evaluate(keep);
  await page.evaluate(watch);
  const began = Date.now();
  await page.evaluate(name === 'hls.js' ? playWithHls : playWithShaka, options.url);
  await page.waitForFunction(() => window.probe.playing, null, { timeout: Number(options.start) * 1000 });
  const firstMs = Date.now() - began;
  const end = Date.now() + Number(options.seconds) * 1000;
  const rows = await page.evaluate(() => window.rows());
  const switches = [];
  for (let n = 0; ; n += 1) {
    await sleep(Math.max(0, Math.min(Number(options.every) * 1000, end - Date.now())));
    if (end - Date.now() < 4000) break;
    // Every pair of renditions comes up in turn.
    const now = await page.evaluate(() => document.querySelector('video').videoHeight);
    const others = rows.filter((one) => one !== now);
    const to = others[(n + (n >> 1)) % others.length];
    const start = Date.now();
    await page.evaluate((height) => window.choose(height), to);
    const shown = (height) => document.querySelector('video').videoHeight === height;
    const ok = await page.waitForFunction(shown, to, { timeout: 15000, polling: 50 }).then(() => true, () => false);
    switches.push({ from: now, to, ok, ms: Date.now() - start });
  }
  await sleep(Math.max(0, end - Date.now()));
  const { latency, ahead, ...got } = await page.evaluate(() => window.report());
  const renditions = got.fatal ? await served(options.url) : [];
  const given = got.fatal ? (await page.evaluate(() => window.given())).map((run) => judge(run, renditions)) : undefined;
  return [name, { seconds: Number(options.seconds), first_ms: firstMs, latency: spread(latency), ahead: spread(ahead), switches, given, console: said, ...got }];
}

const site = await serve();
const browser = await chromium.launch({ executablePath: options.browser, args: FLAGS, headless: true });
try {
  const all = await Promise.all(options.players.split(',').map((name) => play(browser, site, name)));
  console.log(JSON.stringify({ browser: browser.version(), players: Object.fromEntries(all) }));
} finally {
  await browser.close();
  site.close();
}
