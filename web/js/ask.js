// Asks for a token where the daemon wants another one.

import { $, setText } from './dom.js';
import { shownLine } from './shown.js';
import { isToken, keep } from './token.js';

/// What is said of a text that can be no token.
export const NO_TOKEN = 'this is no token: one has letters, digits and - . _ ~ + / alone, without quotes or spaces';

/// The daemon wants another token than the one of this tab. All begins anew with it: nothing of what
/// another one showed stays.
export function askForToken(problem) {
  const dialog = $('token');
  if (dialog.open) return;
  const field = $('token-problem');
  const say = (text) => {
    field.hidden = text === '';
    setText(field, shownLine(text));
  };
  say(problem);
  let isTaken = false;
  const taken = (event) => {
    const text = $('token-text').value.trim();
    if (!isToken(text)) {
      event.preventDefault();
      say(NO_TOKEN);
      return;
    }
    isTaken = true;
    keep(text);
    location.reload();
  };
  $('token-form').addEventListener('submit', taken);
  // There is nothing behind it without a token.
  dialog.addEventListener('close', () => { if (!isTaken) dialog.showModal(); });
  dialog.showModal();
}
