"""Transport streams with the time stamps that a test wants: a clip repeated as one continuous stream from any 33-bit start,
with jumps where they are asked for. Continuity counters go on over every joint."""

WRAP = 1 << 33


def _time(data, at):
    return ((data[at] >> 1 & 7) << 30 | data[at + 1] << 22 | (data[at + 2] >> 1) << 15 | data[at + 3] << 7
            | data[at + 4] >> 1)


def _put_time(data, at, value):
    value %= WRAP
    data[at] = data[at] & 0xF1 | value >> 29 & 0x0E
    data[at + 1] = value >> 22 & 255
    data[at + 2] = value >> 14 & 0xFE | 1
    data[at + 3] = value >> 7 & 255
    data[at + 4] = value << 1 & 0xFE | 1


def _stamps(data, at):
    """Positions of the PTS and DTS of the PES header in this packet."""
    start = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
    if not data[at + 1] & 0x40 or start + 19 > at + 188 or data[start:start + 3] != b"\0\0\1":
        return []
    kind = data[start + 3]
    if not (0xC0 <= kind <= 0xEF):
        return []
    flags = data[start + 7] >> 6
    return [start + 9] * (flags >= 2) + [start + 14] * (flags == 3)


def _pcr(data, at):
    """Position of the PCR of this packet."""
    return at + 6 if data[at + 3] & 0x20 and data[at + 4] >= 7 and data[at + 5] & 0x10 else None


def _shift(data, by):
    for at in range(0, len(data), 188):
        pcr = _pcr(data, at)
        if pcr is not None:
            base = int.from_bytes(data[pcr:pcr + 4], "big") << 1 | data[pcr + 4] >> 7
            base = (base + by) % WRAP
            data[pcr:pcr + 4] = (base >> 1).to_bytes(4, "big")
            data[pcr + 4] = data[pcr + 4] & 0x7F | (base & 1) << 7
        for stamp in _stamps(data, at):
            _put_time(data, stamp, _time(data, stamp) + by)


def restamp(clip, out, start, seconds, jumps=(), period=20 * 90_000):
    """Writes `seconds` of `clip` (whose video lasts `period` ticks) to `out`; the first DTS is `start`. `jumps`: pairs of
    seconds (rounded up to a pass) and ticks."""
    with open(clip, "rb") as f:
        whole = f.read()
    whole = whole[:len(whole) // 188 * 188]
    first = next(_time(whole, _stamps(whole, at)[-1]) for at in range(0, len(whole), 188)
                 if _stamps(whole, at) and 0xE0 <= whole[_stamps(whole, at)[0] - 6] <= 0xEF)
    counters, at_tick, jumps = {}, 0, sorted(jumps)
    with open(out, "wb") as f:
        while at_tick < seconds * 90_000:
            while jumps and at_tick >= jumps[0][0] * 90_000:
                start += jumps.pop(0)[1]
            data = bytearray(whole)
            _shift(data, start + at_tick - first)
            for at in range(0, len(data), 188):
                pid = (data[at + 1] & 0x1F) << 8 | data[at + 2]
                if data[at + 3] & 0x10:
                    counters[pid] = counters.get(pid, 15) + 1 & 15
                data[at + 3] = data[at + 3] & 0xF0 | counters.get(pid, 15)
            f.write(data)
            at_tick += period
    return out
