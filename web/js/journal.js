// Which daemon answers, where several share a log.

/// Its name, and what it is to the journal.
export function daemonLine({ daemon, role }) {
  const roles = { WRITING: 'writes', FOLLOWING: 'follows', DIVERGED: 'has another history' };
  return `${daemon}, ${roles[role] ?? 'of an unknown role'}`;
}

/// What there is to know beside that.
export function journalLine({ stream, term, slot, writer, trouble }) {
  const what = trouble ? `; ${trouble}` : '';
  return `the journal ${stream}, term ${term ?? 0}, slot ${slot ?? 0}, written by ${writer || 'nobody that is known'}${what}`;
}
