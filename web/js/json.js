// JSON as text: indented, or skimmed. Never parsed into numbers and back, which would round those of
// more than 53 bits and drop names that come twice.

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

function isValid(text) {
  try { JSON.parse(text); } catch { return false; }
  return true;
}

/// The text indented, or null if it is no JSON object or array.
export function prettyJson(text) {
  if (!/^\s*[{[]/.test(text) || !isValid(text)) return null;
  let out = '';
  let depth = 0;
  const line = () => `\n${'  '.repeat(depth)}`;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{' || token === '[') {
      depth += 1;
      out += token + line();
    } else if (token === '}' || token === ']') {
      depth -= 1;
      out = /[{[]\s*$/.test(out) ? out.trimEnd() + token : out + line() + token;
    } else if (token === ',') out += token + line();
    else if (token === ':') out += ': ';
    else out += token;
  }
  return out;
}

/// Names and values of an object's outermost level, values as their text; null if it is no object.
export function topFields(text) {
  if (!/^\s*\{/.test(text) || !isValid(text)) return null;
  const fields = [];
  let depth = 0;
  let name = null;
  let value = '';
  const close = () => {
    if (name !== null) fields.push([JSON.parse(name), value.startsWith('"') ? JSON.parse(value) : value]);
    name = null;
    value = '';
  };
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '}' || token === ']') depth -= 1;
    if (depth === 0) {
      if (token === '}') close();
      depth += 1;
      continue;
    }
    if (depth === 1 && token === ',') close();
    else if (depth === 1 && token === ':' && name === null) [name, value] = [value, ''];
    else value += token;
    if (token === '{' || token === '[') depth += 1;
  }
  return fields;
}
