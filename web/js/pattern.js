// Topics, patterns and room names, by the daemon's rules (src/topic.rs).

/// What is wrong with a pattern, or null.
export function patternProblem(pattern) {
  const segments = pattern.split('.');
  for (let i = 0; i < segments.length; i += 1) {
    const segment = segments[i];
    if (segment === '') return 'has an empty segment';
    if (/[\p{White_Space}\p{Cc}]/u.test(segment)) return 'has white space';
    if (segment === '>' && i < segments.length - 1) return '">" must be the last segment';
    if (segment.length > 1 && /[*>]/.test(segment)) return '"*" and ">" must stand alone in a segment';
  }
  if (segments.length > 32) return 'has more than 32 segments';
  if (new TextEncoder().encode(pattern).length > 255) return 'is longer than 255 bytes';
  return null;
}

/// What was probably meant by a pattern that is none, as the daemon says it (crates/record/src/topic/meant.rs), or null.
function meant(pattern) {
  let text = pattern;
  if (pattern.endsWith('.')) text = `${pattern}>`;
  else if (/[/:]/.test(pattern) && /[*>#]/.test(pattern)) text = pattern.split(/[./:]/).filter(Boolean).join('.').replaceAll('#', '>');
  else if (pattern.includes('**')) text = pattern.replaceAll('**', '>');
  else text = pattern.replace(/[^.*>]+[*>]$/, (part) => `${part.slice(0, -1)}.>`);
  return text === pattern || patternProblem(text) ? null : text;
}

/// What is wrong with a topic, or null.
export function topicProblem(topic) {
  if (topic === '') return 'must not be empty';
  if (/[*>]/.test(topic)) return '"*" and ">" belong in patterns';
  return patternProblem(topic);
}

/// Patterns of a text: separated by white space or commas. `>` alone is everything, so no pattern.
export function readPatterns(text) {
  const patterns = [...new Set(text.split(/[\s,]+/).filter(Boolean))];
  if (patterns.includes('>')) return { patterns: [], problem: null };
  if (patterns.length > 64) return { patterns: [], problem: 'more than 64 patterns' };
  for (const pattern of patterns) {
    const problem = patternProblem(pattern);
    const instead = problem && meant(pattern);
    if (problem) return { patterns: [], problem: `${pattern} ${problem}${instead ? `; did you mean ${instead} ?` : ''}` };
  }
  return { patterns, problem: null };
}

export function matches(pattern, topic) {
  const want = pattern.split('.');
  const have = topic.split('.');
  for (let i = 0; i < want.length; i += 1) {
    if (i >= have.length) return false;
    if (want[i] === '>') return true;
    if (want[i] !== '*' && want[i] !== have[i]) return false;
  }
  return want.length === have.length;
}

/// No pattern selects everything.
export const selects = (patterns, topic) => patterns.length === 0 || patterns.some((pattern) => matches(pattern, topic));

/// Whether an event says `text` anywhere a reader would look; `text` is in lower case.
export function says(event, text) {
  if (text === '') return true;
  const has = (value) => value !== undefined && value.toLowerCase().includes(text);
  if (has(event.topic) || has(event.body) || has(event.type) || has(event.key) || has(event.id)) return true;
  return Object.entries(event.headers ?? {}).some(([name, value]) => has(name) || has(value));
}

const hex = (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;

/// The topic of a room: one segment, percent-encoded where a topic would not allow it.
export function roomTopic(room) {
  const name = room === '' ? 'general' : room;
  const segment = name.replace(/[.*>%\p{White_Space}\p{Cc}]/gu, (c) => [...new TextEncoder().encode(c)].map(hex).join(''));
  return `chat.${segment}`;
}

/// The room of a topic, or null if it is no room's.
export function topicRoom(topic) {
  const segments = topic.split('.');
  if (segments.length !== 2 || segments[0] !== 'chat') return null;
  try { return decodeURIComponent(segments[1]); } catch { return null; }
}
