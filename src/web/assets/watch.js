// The watch page: plays one channel, says how it is doing, and comes back by itself.
//
// One loop: find a session that is on air -> play it until it ends, fails or is replaced -> find the next.
// `window.rung` holds the counters that tests read.

const channel = decodeURIComponent(location.pathname.split('/').filter(Boolean).pop() ?? '');
// A signed address has its pass in front of the path, or signed claims behind it; media inherit what the playlist says.
let root = location.pathname.slice(0, location.pathname.lastIndexOf('/watch/'));
const claims = new URLSearchParams(location.search).get('t');
const playlist = `${root}/live/${encodeURIComponent(channel)}/index.m3u8${claims ? `?t=${claims}` : ''}`;
const byId = (id) => document.getElementById(id);
const video = byId('video');

const rung = (window.rung = {
  channel, state: 'waiting', session: null, engine: null,
  latency: null, targetLatency: null, buffer: 0, rate: 1,
  level: null, levels: [], auto: true, switches: 0,
  frames: 0, dropped: 0, stalls: 0, stalledMs: 0, starts: 0, jumps: 0, fatal: 0, errors: [],
  firstFrameMs: null, hls: null, back: false,
  audio: null, audios: [], captions: 'off', services: [],
  setLevel(name) { choose(name); },
  setAudio(name) { chooseAudio(name); },
  setCaptions(id) { chooseCaptions(id); },
});

// ---- clock: the server's, so that a viewer's wrong clock does not show as latency ----

let clock = { offset: 0, trip: Infinity, at: 0 };
const serverNow = () => Date.now() + clock.offset;

function learnClock(sent, received, serverMs) {
  const trip = received - sent;
  // The shortest trip is the best witness; witnesses age.
  if (trip <= clock.trip || received - clock.at > 60000) {
    clock = { offset: serverMs - (sent + received) / 2, trip, at: received };
  }
}

// ---- status of the channel ----

let status = null;

async function poll() {
  try {
    const sent = Date.now();
    const answer = await fetch(`/status.json?channel=${encodeURIComponent(channel)}`, { cache: 'no-store' });
    if (answer.ok) {
      const all = await answer.json();
      learnClock(sent, Date.now(), all.now_ms);
      status = all.channels.find((c) => c.name === channel) ?? { state: 'unknown', renditions: [] };
      shed();
    }
  } catch { status = null; }
  paint();
  setTimeout(() => poll(), rung.state === 'live' ? 3000 : 1000);
}

/** Renditions that the box had to stop for lack of time: automatic choice stays below them. */
function shed() {
  const names = new Set((status?.renditions ?? []).filter((r) => r.state === 'shed').map((r) => r.name));
  const notice = byId('notice');
  notice.hidden = names.size === 0;
  if (names.size) notice.textContent = `${[...names].join(', ')} paused: the server is short of computing time. It comes back by itself.`;
  const hls = rung.hls;
  if (!hls || !hls.levels.length) return;
  const first = hls.levels.findIndex((l) => names.has(nameOf(l)));
  hls.autoLevelCapping = first > 0 ? first - 1 : -1;
}

// ---- finding a session ----

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Why this viewer is not let in, in the server's words. */
let refusal = null;

/** The session on air and its first media playlist, or null. */
async function onAir() {
  const read = async (url) => {
    const answer = await fetch(url, { cache: 'no-store' });
    refusal = answer.status === 403 ? (await answer.json()).detail : null;
    return answer.ok ? answer.text() : null;
  };
  const main = await read(playlist);
  const uri = main?.split('\n').find((line) => line && !line.startsWith('#'));
  if (!uri) return null;
  const first = new URL(uri, new URL(playlist, location.href));
  root = first.pathname.slice(0, first.pathname.lastIndexOf('/live/'));
  const media = await read(first.href);
  if (!media || media.includes('#EXT-X-ENDLIST')) return null;
  return sessionOf(new URL(media.match(/URI="([^"]+)"/)?.[1] ?? '', first).pathname) ?? '';
}

const sessionOf = (url) => url.match(/\/live\/[^/]+\/([^/]+)\/[^/]+\/[^/]+$/)?.[1] ?? null;

async function main() {
  await poll();
  let wait = 500;
  let after = 'waiting';
  for (;;) {
    let session = null;
    try {
      // The status saves asking for playlists that are not there; without it they are asked for.
      if (!status || !['idle', 'init', 'processing', 'ended', 'unknown'].includes(status.state)) session = await onAir();
    } catch { /* the server is away: try again */ }
    if (session === null) {
      setState(after);
      await sleep(wait);
      wait = Math.min(wait * 1.4, 3000);
      continue;
    }
    wait = 500;
    const why = await play(session);
    if (why === 'fatal') await sleep(700);
    after = why === 'ended' ? 'ended' : 'waiting';
  }
}

// ---- playing ----

/** Plays until the session is over: resolves to 'ended', 'replaced' or 'fatal'. */
function play(session) {
  rung.starts += 1;
  rung.session = session;
  setState('starting');
  if (window.Hls?.isSupported()) return playWithHls(session);
  if (video.canPlayType('application/vnd.apple.mpegurl')) return playNative();
  const missing = document.querySelector('meta[name="player"]').content === 'missing';
  return new Promise(() => setState(missing ? 'unbuilt' : 'unsupported'));
}

/** Live media does not wait: short tries, then the page starts over. */
const policy = (ms, tries) => ({
  default: {
    maxTimeToFirstByteMs: ms, maxLoadTimeMs: 2 * ms,
    timeoutRetry: { maxNumRetry: 2, retryDelayMs: 0, maxRetryDelayMs: 0 },
    errorRetry: { maxNumRetry: tries, retryDelayMs: 300, maxRetryDelayMs: 1500, backoff: 'linear' },
  },
});

function playWithHls(session) {
  return new Promise((resolve) => {
    rung.engine = 'hls.js';
    const hls = new window.Hls({
      lowLatencyMode: true,
      // liveSyncDuration stays unset: the playlist's PART-HOLD-BACK or HOLD-BACK decides.
      maxLiveSyncPlaybackRate: CATCH_UP,
      liveDurationInfinity: true,
      backBufferLength: 12,
      maxBufferLength: 20,
      maxBufferSize: 24e6,
      abrEwmaDefaultEstimate: 2.5e6,
      maxFragLookUpTolerance: 0.1,
      manifestLoadPolicy: policy(8000, 2),
      playlistLoadPolicy: policy(10000, 6),
      fragLoadPolicy: policy(10000, 6),
      timelineController: captionReader(),
    });
    rung.hls = hls;
    rung.back = false;
    let recovered = 0;
    let over = false;
    const end = (why) => {
      if (over) return;
      over = true;
      clearInterval(watch);
      video.removeEventListener('ended', ended);
      hls.destroy();
      rung.hls = null;
      resolve(why);
    };
    const ended = () => end('ended');
    video.addEventListener('ended', ended);

    hls.on(window.Hls.Events.MANIFEST_LOADED, (_, data) => listCaptions(data.captions ?? []));
    for (const name of ['AUDIO_TRACKS_UPDATED', 'AUDIO_TRACK_SWITCHED']) hls.on(window.Hls.Events[name], () => listAudio(hls));
    hls.on(window.Hls.Events.MANIFEST_PARSED, () => { listLevels(hls); shed(); start(); });
    hls.on(window.Hls.Events.LEVELS_UPDATED, () => listLevels(hls));
    hls.on(window.Hls.Events.LEVEL_SWITCHED, (_, { level }) => {
      if (rung.level !== null) rung.switches += 1;
      rung.level = nameOf(hls.levels[level]);
      paint();
    });
    hls.on(window.Hls.Events.LEVEL_UPDATED, (_, { details }) => {
      const last = details.fragments.at(-1);
      const now = last && sessionOf(new URL(last.url).pathname);
      // The addresses of playlists outlive a session: the next one's media needs a fresh start.
      if (now && session && now !== session) end('replaced');
    });
    hls.on(window.Hls.Events.ERROR, (_, data) => {
      note(data.details, data.fatal);
      if (!data.fatal) return;
      if (data.type === window.Hls.ErrorTypes.MEDIA_ERROR && recovered < 2) {
        recovered += 1;
        hls.recoverMediaError();
        start();
      } else {
        end('fatal');
      }
    });

    // Catch-up is the player's work (a little faster); what is too far behind for that jumps.
    let stood = 0;
    let before = -1;
    const watch = setInterval(() => {
      // Tracks that end apart leave the player waiting at the shorter one's end: over is over.
      stood = !video.paused && video.currentTime === before ? stood + 1 : 0;
      before = video.currentTime;
      if (stood >= 2 && hls.latestLevelDetails?.live === false) { end('ended'); return; }
      const target = hls.targetLatency ?? 0;
      const behind = rung.latency - target;
      const far = behind > Math.max(6, 1.5 * target);
      if (far && !rung.back && !video.paused && !document.hidden && hls.liveSyncPosition > video.currentTime + 2) toEdge();
    }, 1000);

    hls.loadSource(playlist);
    hls.attachMedia(video);
  });
}

function playNative() {
  return new Promise((resolve) => {
    rung.engine = 'native';
    const off = new AbortController();
    const end = (why) => { off.abort(); video.removeAttribute('src'); video.load(); resolve(why); };
    const on = (name, act) => video.addEventListener(name, act, { signal: off.signal });
    on('ended', () => end('ended'));
    on('error', () => { note(`native ${video.error?.code}`, true); end('fatal'); });
    on('loadedmetadata', () => {
      start();
      for (const id of ['quality', 'audio', 'captions']) byId(id).hidden = true;
    });
    on('resize', () => { rung.level = `${video.videoHeight}p`; });
    video.src = playlist;
  });
}

function start() {
  video.play().catch((error) => {
    if (error.name === 'NotAllowedError' && !video.muted) { video.muted = true; video.play().catch(() => setState('tap')); }
    else if (error.name === 'NotAllowedError') setState('tap');
  });
}

function note(what, fatal) {
  if (fatal) rung.fatal += 1;
  if (what === 'bufferStalledError') return; // counted as a stall
  rung.errors.push({ at: Math.round(performance.now()), what, fatal: Boolean(fatal) });
  if (rung.errors.length > 100) rung.errors.shift();
}

function toEdge() {
  goBack(false);
  const edge = rung.hls ? rung.hls.liveSyncPosition : video.seekable.length ? video.seekable.end(video.seekable.length - 1) - 3 : null;
  if (edge) { rung.jumps += 1; video.currentTime = edge; }
  start();
}

// ---- going back: a line over what the playlist holds, and a picture of where the pointer is ----

const CATCH_UP = 1.08;

/** Someone who goes back on purpose is left there. */
function goBack(back) {
  rung.back = back;
  if (rung.hls) rung.hls.config.maxLiveSyncPlaybackRate = back ? 1 : CATCH_UP;
  if (back) video.playbackRate = 1;
}

/** What can be gone back to, in the player's time; null: nothing. */
function range() {
  const details = rung.hls?.latestLevelDetails;
  if (rung.state !== 'live' || !details?.hasProgramDateTime || !rung.hls.playingDate) return null;
  const [from, to] = [details.fragmentStart, Math.max(rung.hls.liveSyncPosition ?? 0, video.currentTime)];
  return to - from > 4 ? { from, to } : null;
}

let board = { at: -Infinity, cues: [] };

/** The storyboard's cues: each is named by the date of its start, which needs no common zero of clocks. */
async function storyboard() {
  if (performance.now() - board.at < 5000) return;
  board.at = performance.now();
  const address = new URL(`${root}/live/${encodeURIComponent(channel)}/storyboard.vtt`, location.href);
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) { board.cues = []; return; }
  const cue = (block) => {
    const [name, , place] = block.split('\n');
    const [file, box] = (place ?? '').split('#xywh=');
    return { date: Date.parse(name), sheet: new URL(file, address).href, box: box?.split(',').map(Number) };
  };
  board.cues = (await answer.text()).split('\n\n').slice(1).map(cue).filter((c) => c.date && c.box?.length === 4);
}

const scrub = byId('scrub');

function pointed(event) {
  const span = range();
  const edge = scrub.getBoundingClientRect();
  if (!span) return null;
  const part = Math.min(1, Math.max(0, (event.clientX - edge.left) / edge.width));
  return { part, time: span.from + part * (span.to - span.from), behind: (1 - part) * (span.to - span.from) };
}

async function preview(event) {
  const at = pointed(event);
  if (!at) return;
  const date = rung.hls.playingDate.getTime() + (at.time - video.currentTime) * 1000;
  await storyboard();
  const cue = board.cues.findLast((c) => c.date <= date) ?? board.cues[0];
  const shown = byId('preview-picture');
  if (cue) {
    const [x, y, width, height] = cue.box;
    Object.assign(shown.style, { width: `${width}px`, height: `${height}px`, backgroundImage: `url("${cue.sheet}")`, backgroundPosition: `-${x}px -${y}px` });
  } else {
    shown.removeAttribute('style');
  }
  text('preview-time', at.behind < 1 ? 'Live' : `${Math.round(at.behind)} s back`);
  byId('preview').style.left = `${Math.min(92, Math.max(8, at.part * 100))}%`;
  byId('preview').hidden = !scrub.matches(':hover');
}
scrub.addEventListener('pointermove', preview);
scrub.addEventListener('pointerleave', () => { byId('preview').hidden = true; });
scrub.addEventListener('click', (event) => {
  const at = pointed(event);
  if (!at) return;
  if (at.behind < 1) { toEdge(); return; }
  goBack(true);
  rung.jumps += 1;
  video.currentTime = at.time;
  start();
});

function paintScrub() {
  const span = range();
  scrub.hidden = !span;
  if (span) byId('played').style.width = `${Math.min(100, Math.max(0, (video.currentTime - span.from) / (span.to - span.from) * 100))}%`;
}

// ---- renditions ----

const nameOf = (level) => (level ? (level.url[0] ?? '').split('/').pop().replace(/\.m3u8.*$/, '') || `${level.height}p` : null);

function listLevels(hls) {
  rung.levels = hls.levels.map(nameOf);
  const select = byId('quality');
  const best = [...hls.levels].reverse();
  select.replaceChildren(new Option('Auto', 'auto'), ...best.map((l) => new Option(nameOf(l), nameOf(l))));
  select.value = rung.auto ? 'auto' : rung.level;
}

function choose(name) {
  const hls = rung.hls;
  if (!hls) return;
  const index = hls.levels.findIndex((l) => nameOf(l) === name);
  rung.auto = index < 0;
  hls.nextLevel = index;
  byId('quality').value = rung.auto ? 'auto' : name;
  paint();
}

// ---- sound tracks and captions: as the playlist names them; a choice outlives a session ----

const wanted = { audio: null };

function options(id, list, chosen) {
  const select = byId(id);
  const shown = JSON.stringify(list);
  if (select.dataset.shown !== shown) {
    select.dataset.shown = shown;
    select.replaceChildren(...list.map(([value, label]) => new Option(label, value)));
  }
  select.hidden = list.length < 2;
  select.value = chosen;
}

function listAudio(hls) {
  const tracks = hls.audioTracks ?? [];
  rung.audios = tracks.map((t) => t.name);
  const again = tracks.findIndex((t) => t.name === wanted.audio);
  if (again >= 0 && hls.audioTrack !== again) hls.audioTrack = again;
  rung.audio = tracks[hls.audioTrack]?.name ?? null;
  options('audio', rung.audios.map((name) => [name, name]), rung.audio);
}

function chooseAudio(name) {
  wanted.audio = name;
  if (rung.hls) listAudio(rung.hls);
}

/** hls.js reads line 21 alone, and makes a track when a channel first says something. */
function listCaptions(captions) {
  rung.services = captions.map((c) => ({ id: c.instreamId, name: c.name })).filter((c) => /^CC[1-4]$/.test(c.id));
  if (rung.captions !== 'off' && !rung.services.some((c) => c.id === rung.captions)) rung.captions = 'off';
  showCaptions();
}

/** hls.js 1.7.4 takes each part behind a segment's first for a jump, and forgets the caption that it was reading. */
function captionReader() {
  return class extends window.Hls.DefaultConfig.timelineController {
    onFragLoading(event, data) {
      const { frag, part } = data;
      const goesOn = frag.type === 'main' && frag.sn === this.lastSn && part?.index === this.lastPartIndex + 1;
      if (goesOn) this.lastSn -= 1;
      super.onFragLoading(event, data);
    }
    // Parts that were listed already are announced by the first of them alone.
    onFragLoaded(event, data) {
      const { frag, part } = data;
      if (frag.type === 'main' && part && frag.sn === this.lastSn) this.lastPartIndex = part.index;
      super.onFragLoaded(event, data);
    }
    // A reader that begins anew in the midst of a caption has the rest of it; it may be there whole already.
    addCues(name, start, end, screen, ranges) {
      const there = [...(this.captionsTracks[name]?.track.cues ?? [])].filter((cue) => cue.startTime < end && start < cue.endTime);
      const rows = screen.getDisplayText().split('\n');
      if (!rows.every((row) => there.some((cue) => cue.text.endsWith(row)))) super.addCues(name, start, end, screen, ranges);
    }
  };
}

function showCaptions() {
  options('captions', [['off', 'CC off'], ...rung.services.map((c) => [c.id, /^CC/.test(c.name) ? c.name : `CC ${c.name}`])], rung.captions);
  const chosen = rung.services.find((c) => c.id === rung.captions)?.name;
  for (const track of video.textTracks) {
    if (track.kind === 'captions') track.mode = track.label === chosen ? 'showing' : 'hidden';
  }
}

function chooseCaptions(id) {
  rung.captions = rung.services.some((c) => c.id === id) ? id : 'off';
  showCaptions();
}

let captionsBefore = null;
function toggleCaptions() {
  const last = rung.captions;
  chooseCaptions(last === 'off' ? captionsBefore ?? rung.services[0]?.id : 'off');
  if (last !== 'off') captionsBefore = last;
}
video.textTracks.addEventListener('addtrack', showCaptions);

// ---- stalls: time that the viewer waits after the first picture ----

let waitingSince = null;
video.addEventListener('waiting', () => {
  const running = rung.hls ? rung.hls.latestLevelDetails?.live !== false : true;
  if (rung.state === 'live' && !video.paused && !video.seeking && running && waitingSince === null) {
    waitingSince = performance.now();
    rung.stalls += 1;
  }
});
function resumed() {
  if (waitingSince !== null) { rung.stalledMs += performance.now() - waitingSince; waitingSince = null; }
}
video.addEventListener('timeupdate', () => { if (!video.seeking) resumed(); });
video.addEventListener('playing', () => {
  resumed();
  rung.firstFrameMs ??= Math.round(performance.now());
  setState('live');
});

// ---- what the page says ----

const SAY = {
  waiting: ['Waiting for a publisher', 'The picture starts here by itself as soon as someone goes on air.', 'idle', 'Off air'],
  starting: ['Starting', 'The first pictures are on their way.', 'processing', 'Starting'],
  ended: ['The broadcast has ended', 'The next one starts here by itself.', 'idle', 'Ended'],
  tap: ['Ready', 'Press play: this browser does not start pictures by itself.', 'live', 'Live'],
  unknown: ['No such channel', 'No channel has this name. The start page lists those that there are.', 'error', 'Unknown'],
  refused: ['For invited viewers', '', 'error', 'Signed'],
  unsupported: ['This browser cannot play', 'It has neither Media Source Extensions nor HLS of its own.', 'error', 'No player'],
  unbuilt: ['The player is not built in', 'Run make setup, then build and start Rung again.', 'error', 'No player'],
  away: ['The server does not answer', 'Trying again.', 'error', 'Away'],
  live: ['', '', 'live', 'Live'],
};

const MODES = { ultra: 'Ultra-low latency', low: 'Low latency', normal: 'Normal latency' };

function setState(state) {
  rung.state = state;
  if (state !== 'live') { waitingSince = null; rung.latency = null; trace.length = 0; }
  paint();
}

const text = (id, words) => { const at = byId(id); if (at.textContent !== words) at.textContent = words; };
const figure = (id, value, unit) => {
  const at = byId(id);
  if (at.firstChild?.data === value && at.dataset.unit === unit) return;
  at.dataset.unit = unit ?? '';
  at.replaceChildren(value, ...(unit ? [Object.assign(document.createElement('small'), { textContent: unit })] : []));
};

function paint() {
  let shown = rung.state;
  if (shown === 'waiting' && !status) shown = 'away';
  if (shown === 'waiting' && status?.state === 'unknown') shown = 'unknown';
  if (shown === 'waiting' && ['init', 'processing'].includes(status?.state)) shown = 'starting';
  if (shown === 'waiting' && refusal) shown = 'refused';
  const [title, words, colour, pill] = SAY[shown];
  text('cover-title', title);
  text('cover-text', shown === 'refused' ? refusal : status?.state === 'error' && status.detail ? status.detail : words);
  byId('cover').hidden = shown === 'live';
  // Before the first picture, and behind the last one, stands the newest one that the server has.
  if (shown !== 'live' && status && (status.poster ?? '') !== (video.getAttribute('poster') ?? '')) {
    if (status.poster) video.poster = status.poster; else video.removeAttribute('poster');
  }
  byId('cover').toggleAttribute('data-over', video.hasAttribute('poster'));
  byId('cover').toggleAttribute('data-busy', ['waiting', 'starting', 'ended', 'away'].includes(shown));
  byId('bar').hidden = shown !== 'live' && shown !== 'tap';
  byId('unmute').hidden = shown !== 'live' || !video.muted;
  const held = shown === 'live' && waitingSince !== null && performance.now() - waitingSince > 2000;
  const away = shown === 'live' && (held || status?.state === 'reconnecting');
  byId('state').dataset.state = away ? 'reconnecting' : colour;
  text('state', !away ? pill : status ? held ? 'Waiting for media' : 'Source reconnecting' : 'Server away');
  text('session', rung.session && shown === 'live' ? rung.session : '');
  text('mode', MODES[status?.mode] ?? '');
  text('rendition-note', rendition());
  paintScrub();
  figures(shown === 'live');
}

function rendition() {
  const hls = rung.hls;
  const level = hls?.levels[hls.currentLevel];
  if (rung.state !== 'live') return '';
  const size = video.videoWidth ? `${video.videoWidth} × ${video.videoHeight}` : '';
  return level ? `${size} · ${(level.bitrate / 1e6).toFixed(1)} Mb/s` : size;
}

const trace = [];

function figures(live) {
  figure('latency', live && rung.latency !== null ? rung.latency.toFixed(1) : '–', live && rung.latency !== null ? 's' : '');
  text('latency-note', live && rung.targetLatency ? `aims at ${rung.targetLatency.toFixed(1)} s` : '');
  figure('buffer', live ? rung.buffer.toFixed(1) : '–', live ? 's' : '');
  text('buffer-note', live && rung.rate !== 1 ? `playing at ${rung.rate.toFixed(2)}×` : '');
  figure('rendition', live && rung.level ? rung.level : '–', live && rung.level && rung.auto && rung.hls ? 'auto' : '');
  figure('dropped', live ? String(rung.dropped) : '–');
  text('dropped-note', live ? `of ${rung.frames.toLocaleString('en')} shown` : '');
  figure('stalls', live ? String(rung.stalls) : '–');
  text('stalls-note', rung.stalls ? `${(rung.stalledMs / 1000).toFixed(1)} s in all` : live ? 'none so far' : '');
  const edge = live && rung.latency !== null && rung.latency < (rung.targetLatency ?? 3) + 1.5;
  byId('golive').dataset.edge = edge && !video.paused ? 'yes' : 'no';
  const top = Math.max(4, (rung.targetLatency ?? 2) * 2, ...trace);
  byId('trace').setAttribute('points', trace.map((v, n) => `${((n + 60 - trace.length) / 59) * 100},${(38 - (v / top) * 36).toFixed(1)}`).join(' '));
  const goal = byId('goal');
  goal.setAttribute('visibility', live && rung.targetLatency ? 'visible' : 'hidden');
  const y = 38 - ((rung.targetLatency ?? 0) / top) * 36;
  goal.setAttribute('y1', y);
  goal.setAttribute('y2', y);
}

function measure() {
  if (rung.state !== 'live') return;
  const hls = rung.hls;
  const date = hls ? hls.playingDate?.getTime() : video.getStartDate?.().getTime() + video.currentTime * 1000;
  rung.latency = Number.isFinite(date) ? (serverNow() - date) / 1000 : hls?.latency || null;
  rung.targetLatency = hls?.targetLatency ?? null;
  rung.rate = video.playbackRate;
  const ranges = video.buffered;
  rung.buffer = 0;
  for (let n = 0; n < ranges.length; n += 1) {
    if (ranges.start(n) <= video.currentTime + 0.1 && ranges.end(n) > video.currentTime) rung.buffer = ranges.end(n) - video.currentTime;
  }
  const quality = video.getVideoPlaybackQuality?.();
  if (quality) { rung.frames = quality.totalVideoFrames; rung.dropped = quality.droppedVideoFrames; }
}

let beats = 0;
setInterval(() => {
  measure();
  beats += 1;
  if (beats % 2 === 0 && rung.state === 'live') {
    if (beats % 4 === 0 && rung.latency !== null) { trace.push(rung.latency); if (trace.length > 60) trace.shift(); }
    paint();
  }
}, 250);

// ---- controls ----

const PAUSE = 'M8.5 5.5v13M15.5 5.5v13';
const PLAY = 'M8 5.5v13l10-6.5z';

function controls() {
  const paused = video.paused;
  byId('play').querySelector('path').setAttribute('d', paused ? PLAY : PAUSE);
  byId('play').setAttribute('aria-label', paused ? 'Play' : 'Pause');
  const quiet = video.muted || video.volume === 0;
  byId('mute').querySelector('.waves').style.display = quiet ? 'none' : '';
  byId('mute').querySelector('.cross').style.display = quiet ? '' : 'none';
  byId('mute').setAttribute('aria-label', quiet ? 'Sound on' : 'Sound off');
  byId('volume').value = quiet ? 0 : video.volume;
  byId('unmute').hidden = rung.state !== 'live' || !video.muted;
}
for (const name of ['play', 'pause', 'volumechange']) video.addEventListener(name, controls);

function sound(on) { video.muted = !on; if (on && video.volume === 0) video.volume = 1; }
function togglePlay() { if (video.paused) { toEdge(); } else { video.pause(); } }
function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (byId('player').requestFullscreen) byId('player').requestFullscreen();
  else video.webkitEnterFullscreen?.();
}
function togglePip() {
  if (document.pictureInPictureElement) document.exitPictureInPicture();
  else video.requestPictureInPicture?.().catch(() => {});
}
byId('play').onclick = togglePlay;
byId('mute').onclick = () => sound(video.muted || video.volume === 0);
byId('unmute').onclick = () => sound(true);
byId('volume').oninput = (event) => { video.volume = event.target.valueAsNumber; video.muted = video.volume === 0; };
byId('golive').onclick = toEdge;
byId('audio').onchange = (event) => chooseAudio(event.target.value);
byId('captions').onchange = (event) => chooseCaptions(event.target.value);
byId('quality').onchange = (event) => choose(event.target.value);
byId('full').onclick = toggleFull;
byId('pip').onclick = togglePip;
byId('pip').hidden = !document.pictureInPictureEnabled;
byId('copy').onclick = async () => {
  try { await navigator.clipboard.writeText(new URL(playlist, location.href).href); text('copy', 'Copied'); } catch { location.href = playlist; }
  setTimeout(() => text('copy', 'Copy playlist address'), 1600);
};
document.addEventListener('keydown', (event) => {
  if (event.target.matches('input, select') || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = { ' ': togglePlay, k: togglePlay, m: () => sound(video.muted), f: toggleFull, l: toEdge, p: togglePip, c: toggleCaptions }[event.key];
  if (act && rung.state === 'live') { event.preventDefault(); act(); }
});

// The controls leave the picture alone when nobody moves.
let quietTimer = 0;
function awake() {
  byId('player').removeAttribute('data-quiet');
  clearTimeout(quietTimer);
  quietTimer = setTimeout(() => { if (rung.state === 'live' && !video.paused) byId('player').setAttribute('data-quiet', ''); }, 3000);
}
for (const name of ['pointermove', 'pointerdown', 'focusin']) byId('player').addEventListener(name, awake);
video.addEventListener('click', () => { if (byId('player').hasAttribute('data-quiet')) awake(); });
video.addEventListener('dblclick', toggleFull);

text('channel', channel);
document.title = `${channel} · Rung`;
controls();
awake();
main();
