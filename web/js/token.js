// Who looks: the token that goes with every request.
//
// A tab keeps its own in sessionStorage, so that it goes with the tab. What tabs share, they share
// with those of the same token alone: `tag` tells them apart and does not tell the token.

import { Refused, refusal } from './sse.js';

const KEY = 'tailmark-token';

let token = '';

/// From here on requests carry it; empty = none.
export function setToken(text) { token = text ?? ''; }

export const hasToken = () => token !== '';

/// Whether a text can be one (RFC 6750), or is none at all: what else stands in a header, a browser does not send.
export const isToken = (text) => /^[\w.~+/-]*=*$/.test(text);

/// What a request says of who asks.
export const bearer = () => (token === '' ? {} : { authorization: `Bearer ${token}` });

/// The token that this tab keeps.
export function kept() {
  try { return sessionStorage.getItem(KEY) ?? ''; } catch { return ''; }
}

export function keep(text) {
  try {
    if (text === '') sessionStorage.removeItem(KEY); else sessionStorage.setItem(KEY, text);
  } catch { /* storage is withheld: it lasts until the next load */ }
}

/// A name for those who have this token (FNV-1a).
export function tag(text) {
  let hash = 0x811c9dc5;
  for (const c of text) hash = Math.imul(hash ^ c.codePointAt(0), 0x01000193) >>> 0;
  return text === '' ? '' : `-${hash.toString(16)}`;
}

/// Whom the daemon takes us for; throws `Refused` with status 401 where it wants another token.
export async function principal() {
  const response = await fetch('/v1/principal', { cache: 'no-store', headers: { accept: 'application/json', ...bearer() } });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/// Whether an error says that it was the token.
export const isOfToken = (error) => error instanceof Refused && error.status === 401;
