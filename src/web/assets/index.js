// The list of channels: what each is doing, refreshed every two seconds.

const WORDS = {
  idle: 'Off air', init: 'Starting', processing: 'Starting', live: 'Live', reconnecting: 'Reconnecting',
  ended: 'Ended', error: 'Fault',
};
const MODES = { ultra: 'Ultra-low latency', low: 'Low latency', normal: 'Normal latency' };
const list = document.getElementById('channels');
const cards = new Map();

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function makeCard(name) {
  const parts = {
    shot: element('div', { className: 'shot' }),
    state: element('span', { className: 'state' }),
    say: element('p', { className: 'say' }),
    rungs: element('ul', { className: 'rungs' }),
    mode: element('span'),
  };
  const link = element('a', { href: `/watch/${name}`, textContent: name });
  const signed = element('span', { textContent: 'Signed', title: 'Only who has a signed address may watch: rung channel sign', hidden: true });
  const playlist = element('a', { className: 'link', href: `/live/${name}/index.m3u8`, textContent: 'Playlist' });
  Object.assign(parts, { playlist, signed });
  parts.root = element('li', { className: 'card' }, [
    parts.shot,
    element('div', { className: 'head' }, [element('h2', {}, [link]), parts.state]),
    parts.say,
    parts.rungs,
    element('div', { className: 'foot' }, [element('a', { className: 'link', href: `/watch/${name}`, textContent: 'Watch' }), playlist, signed, parts.mode]),
  ]);
  return parts;
}

/** The newest picture; its address changes with it. The one before stays until the next one is there. */
function picture(card, channel) {
  const address = channel.poster ?? null;
  if (card.poster === address) return;
  card.poster = address;
  if (!address) { card.shot.replaceChildren(); return; }
  const next = element('img', { src: address, alt: `What ${channel.name} shows` });
  next.decode().then(() => { if (card.poster === address) card.shot.replaceChildren(next); }, () => {});
}

function span(ms) {
  const minutes = Math.floor(ms / 60000);
  if (minutes < 1) return `${Math.max(0, Math.floor(ms / 1000))} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
}

function say(state, since) {
  if (state === 'live') return `On air${since}`;
  if (state === 'reconnecting') return 'The source is away; its place is kept';
  if (state === 'init' || state === 'processing') return 'The first pictures are on their way';
  return state === 'ended' ? 'The broadcast has ended' : 'Waiting for a publisher';
}

function show(status) {
  const seen = new Set();
  for (const channel of status.channels) {
    seen.add(channel.name);
    if (!cards.has(channel.name)) {
      const card = makeCard(channel.name);
      cards.set(channel.name, card);
      list.append(card.root);
    }
    const card = cards.get(channel.name);
    card.state.dataset.state = channel.state;
    card.state.textContent = WORDS[channel.state] ?? channel.state;
    picture(card, channel);
    card.playlist.hidden = channel.signed;
    card.signed.hidden = !channel.signed;
    const since = channel.since_ms ? ` for ${span(status.now_ms - channel.since_ms)}` : '';
    card.say.textContent = channel.detail || say(channel.state, since);
    const labels = channel.renditions.map((r) => (r.state === 'shed' ? `${r.name} paused` : r.name));
    if (card.labels !== labels.join()) {
      card.labels = labels.join();
      card.rungs.replaceChildren(...channel.renditions.map((r, n) => {
        const chip = element('li', { textContent: labels[n] });
        chip.dataset.state = r.state;
        return chip;
      }));
    }
    card.mode.textContent = MODES[channel.mode] ?? '';
  }
  for (const [name, card] of cards) {
    if (!seen.has(name)) { card.root.remove(); cards.delete(name); }
  }
  const live = status.channels.filter((c) => c.state === 'live' || c.state === 'reconnecting').length;
  document.getElementById('summary').textContent = status.channels.length ? `${live} of ${status.channels.length} on air` : '';
  document.getElementById('empty').hidden = status.channels.length > 0;
  document.getElementById('version').textContent = `Rung ${status.version}`;
}

async function refresh() {
  try {
    const answer = await fetch('/status.json', { cache: 'no-store' });
    show(await answer.json());
  } catch {
    document.getElementById('summary').textContent = 'The server does not answer';
  }
  setTimeout(refresh, 2000);
}
refresh();
