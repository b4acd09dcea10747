//! What must hold in every state, and what must be possible.

use stateright::Property;

use crate::daemon::{Daemon, Role, joins};
use crate::frame::{Body, Cursor, Meaning, Op, Slot, chain, events, frames, head, look_up, read};
use crate::rules::Rules;
use crate::world::{Knows, Protocol, Scene, World};

/// An acked event is in the journal once and at its place, and no event is there twice.
pub const ACKED_ONCE: &str = "what is acked is there once";
/// Two daemons have shown the same events in the same order, one perhaps more of them.
pub const ONE_ORDER: &str = "one order for all";
/// What a daemon has shown is a beginning of what the journal holds. After the journal was rolled
/// back: as soon as the daemon has looked.
pub const SHOWN_IS_HELD: &str = "what is shown is held";
/// Each frame in the journal goes on from the one before it.
pub const ONE_CHAIN: &str = "frames join in the journal";
/// No copy goes on from one history with another.
pub const NOT_MIXED: &str = "histories don't mix";
/// A verdict was true at some moment of its call.
pub const VERDICTS: &str = "verdicts are true";
/// The cursor of an acked event means that event at each daemon that has it.
pub const CURSORS: &str = "cursors mean the same";
/// The cursor of a lost event never means another one, and the writer says DIVERGED of it.
pub const LOSS_IS_TOLD: &str = "a loss is told";
/// Who says that something was lost is right.
pub const LOSS_IS_TRUE: &str = "a loss that is told is one";

/// A commit may be stored behind one that was refused, and count for nobody. Once.
pub const VAIN_ONCE: &str = "a commit is stored in vain once at most";

/// An event is acked in a second term.
pub const GOES_ON: &str = "after a takeover somebody commits";
/// An event is acked in a second term by the daemon that wrote in the first.
pub const COMES_BACK: &str = "a writer that was fenced follows, and can be writer again";
/// A client that heard "unknown" hears of the one copy.
pub const REPEAT: &str = "a repeat after a takeover is answered";
/// An event is acked behind a foreign message.
pub const BEHIND_FOREIGN: &str = "behind a foreign message somebody commits";
/// An event is acked behind a purge beyond the end.
pub const BEHIND_PURGE: &str = "behind a purge somebody commits";
/// An event is acked after a snapshot was put back.
pub const AFTER_LOSS: &str = "after a loss was accepted somebody commits";
/// What was acked and lost is there again, under the same cursor.
pub const REGAINED: &str = "what was lost is there again";
/// A daemon finds that the journal lost something.
pub const FOUND: &str = "a loss is found";
/// A question about the head is answered.
pub const ANSWERED: &str = "a question is answered";
/// All that clients wanted is stored, acked, and shown by both daemons.
pub const ALL_DONE: &str = "everything is acked and shown by all";

/// The properties that a scene can show.
pub(crate) fn all(scene: &Scene) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::<Protocol>::always(ACKED_ONCE, |_, world| acked_once(world)),
        Property::<Protocol>::always(ONE_ORDER, |_, world| one_order(world)),
        Property::<Protocol>::always(SHOWN_IS_HELD, |_, world| shown_is_held(world)),
        Property::<Protocol>::always(NOT_MIXED, |_, world| {
            world.daemons.iter().all(|it| one_chain(&it.copy))
        }),
        Property::<Protocol>::always(VERDICTS, |model, world| verdicts(&model.rules, world)),
        Property::<Protocol>::always(CURSORS, |_, world| cursors(world)),
        Property::<Protocol>::always(LOSS_IS_TOLD, |_, world| loss_is_told(world)),
        Property::<Protocol>::always(LOSS_IS_TRUE, |_, world| {
            let is_diverged = |it: &Daemon| it.role == Role::Diverged;
            has_lost(world) || !world.daemons.iter().any(is_diverged)
        }),
        Property::<Protocol>::sometimes(ALL_DONE, |_, world| all_done(world)),
    ];
    // With two in flight, the second may lie in the journal and count for nobody.
    if scene.in_flight == 1 {
        let joins = Property::<Protocol>::always;
        all.push(joins(ONE_CHAIN, |_, world| one_chain(world.journal.stored())));
    }
    all.push(Property::<Protocol>::always(VAIN_ONCE, |_, world| vain_once(world)));
    let mut can = |is: bool, property: Property<Protocol>| {
        if is {
            all.push(property);
        }
    };
    can(
        scene.takeovers > 0,
        Property::<Protocol>::sometimes(GOES_ON, |_, world| {
            acked(world).any(|(_, cursor)| cursor.generation.term > 1)
        }),
    );
    can(
        scene.takeovers > 1,
        Property::<Protocol>::sometimes(COMES_BACK, |_, world| {
            let back =
                |cursor: Cursor| cursor.generation.term > 1 && cursor.generation.nonce.by == 0;
            acked(world).any(|(_, cursor)| back(cursor))
        }),
    );
    can(
        scene.takeovers > 0 && scene.sends > 1,
        Property::<Protocol>::sometimes(REPEAT, |_, world| {
            let newest =
                frames(&read(world.journal.stored())).next_back().map(|it| it.generation.term);
            let is_repeat = |op: Op| world.clients[usize::from(op)].sends > 1;
            acked(world).any(|(op, cursor)| is_repeat(op) && newest > Some(cursor.generation.term))
        }),
    );
    can(
        scene.foreign > 0,
        Property::<Protocol>::sometimes(BEHIND_FOREIGN, |_, world| {
            acked_behind(world, Slot::Foreign)
        }),
    );
    can(
        scene.purges > 0,
        Property::<Protocol>::sometimes(BEHIND_PURGE, |_, world| acked_behind(world, Slot::Purged)),
    );
    can(
        scene.rollbacks > 0,
        Property::<Protocol>::sometimes(AFTER_LOSS, |_, world| {
            let is_lost =
                |it: &crate::world::Client| matches!(it.knows, Knows::Acked { is_lost: true, .. });
            world.clients.iter().any(is_lost) && acked(world).any(|(_, it)| it.generation.term > 1)
        }),
    );
    can(
        scene.rollbacks > 0,
        Property::<Protocol>::sometimes(FOUND, |_, world| {
            world.daemons.iter().any(|it| it.role == Role::Diverged)
        }),
    );
    can(
        scene.repairs > 0,
        Property::<Protocol>::sometimes(REGAINED, |_, world| world.spent.regained > 0),
    );
    can(scene.asks > 0, Property::<Protocol>::sometimes(ANSWERED, |_, world| world.answers > 0));
    all
}

/// The events that were acked and not lost since.
fn acked(world: &World) -> impl Iterator<Item = (Op, Cursor)> {
    (0..).zip(&world.clients).filter_map(|(op, client)| match client.knows {
        Knows::Acked { cursor, is_lost: false } => Some((op, cursor)),
        _ => None,
    })
}

/// The cursors of events that were acked and then lost.
fn lost(world: &World) -> impl Iterator<Item = Cursor> {
    world.clients.iter().filter_map(|client| match client.knows {
        Knows::Acked { cursor, is_lost: true } => Some(cursor),
        _ => None,
    })
}

/// The daemons that take their copy for a beginning of the journal.
fn believing(world: &World) -> impl Iterator<Item = &Daemon> {
    let was_rolled_back = world.spent.rollbacks > 0;
    let believes = move |it: &&Daemon| it.is_joined || !was_rolled_back;
    world.daemons.iter().filter(|it| it.role != Role::Diverged).filter(believes)
}

/// Whether the journal lost something, or a purge beyond the end hid what it was.
fn has_lost(world: &World) -> bool {
    world.spent.rollbacks > 0 || world.spent.purges > 0
}

/// What a stray replica served is told only by the next frame: that one does not join.
fn is_told_late(world: &World) -> bool {
    !world.stray.is_empty()
}

fn acked_once(world: &World) -> bool {
    let slots = &read(world.journal.stored())[..];
    let count = |op: Op| events(slots).filter(|(_, it)| *it == op).count();
    let is_at = |op: Op, cursor: Cursor| {
        let at = events(slots).nth(usize::from(cursor.seq) - 1);
        at.is_some_and(|(frame, it)| it == op && frame.generation == cursor.generation)
    };
    (0..).zip(&world.clients).all(|(op, _)| count(op) <= 1)
        && acked(world).all(|(op, cursor)| is_at(op, cursor))
}

fn one_order(world: &World) -> bool {
    let mut daemons = believing(world);
    // The one that has shown most speaks for all.
    let Some(longest) = believing(world).max_by_key(|it| head(&it.copy)) else { return true };
    let agrees = |it: &Daemon| events(&it.copy).zip(events(&longest.copy)).all(|(a, b)| a == b);
    is_told_late(world) || daemons.all(agrees)
}

fn shown_is_held(world: &World) -> bool {
    let held = &read(world.journal.stored())[..];
    // All of it, as far as has been read.
    let is_beginning = |copy: &[Slot]| {
        let there = held.get(..copy.len());
        there.is_some_and(|there| events(copy).map(|it| it.1).eq(events(there).map(|it| it.1)))
    };
    is_told_late(world) || believing(world).all(|it| is_beginning(&it.copy))
}

fn one_chain(slots: &[Slot]) -> bool {
    let mut before = (0, 1);
    frames(slots).all(|frame| {
        let (chain, next) = before;
        let is_event = matches!(frame.body, Body::Event(_));
        before = (frame.chain(), next + u8::from(is_event));
        joins(frame, chain) && frame.first == next
    })
}

fn vain_once(world: &World) -> bool {
    let stored = world.journal.stored();
    let read = read(stored);
    let both = || stored.iter().zip(&read).enumerate();
    let dead = || both().filter(|(_, (_, read))| **read == Slot::Dead);
    // The bytes are the same.
    dead().all(|(at, (one, _))| !dead().any(|(other, (it, _))| other < at && it == one))
}

fn verdicts(rules: &Rules, world: &World) -> bool {
    let slots = &read(world.journal.stored())[..];
    let is_denied = |it: &crate::frame::Frame| world.denied.contains(&it.nonce);
    let is_true = |op: Op, cursor: Cursor| {
        // What is there and was acked is never beyond the head, nor of a history given up.
        let told = believing(world).filter_map(|it| it.resumes(cursor, rules));
        told.into_iter().all(|meaning| meaning == Meaning::Event(op))
    };
    !world.has_lied
        && !frames(slots).any(is_denied)
        && (is_told_late(world) || acked(world).all(|(op, cursor)| is_true(op, cursor)))
}

fn cursors(world: &World) -> bool {
    let held = &read(world.journal.stored())[..];
    let means = |slots: &[Slot], op, cursor| look_up(slots, cursor) == Meaning::Event(op);
    acked(world).all(|(op, cursor)| {
        let mut having = believing(world).filter(|it| head(&it.copy) >= cursor.seq);
        means(held, op, cursor)
            && (is_told_late(world) || having.all(|it| means(&it.copy, op, cursor)))
    })
}

fn loss_is_told(world: &World) -> bool {
    let slots = &read(world.journal.stored())[..];
    let writes = |it: &&Daemon| matches!(it.role, Role::Writing(_)) && it.staged.is_empty();
    let is_at_end = |it: &&Daemon| it.is_joined && chain(&it.copy) == chain(slots);
    lost(world).all(|cursor| {
        let told = |it: &Daemon| look_up(&it.copy, cursor);
        let is_other = |it: Meaning| matches!(it, Meaning::Event(_));
        let mut writers = world.daemons.iter().filter(writes).filter(is_at_end);
        let mut others = believing(world).filter(|_| !is_told_late(world));
        writers.all(|it| matches!(told(it), Meaning::Diverged | Meaning::Unknown))
            && others.all(|it| !is_other(told(it)))
    })
}

fn acked_behind(world: &World, what: Slot) -> bool {
    let slots = &read(world.journal.stored())[..];
    let at = slots.iter().position(|it| *it == what);
    let behind = at.map_or(&[][..], |at| &slots[at..]);
    let is_acked = |op: Op| acked(world).any(|(it, _)| it == op);
    events(behind).any(|(_, op)| is_acked(op))
}

fn all_done(world: &World) -> bool {
    let all = world.clients.len();
    let has_all = |it: &Daemon| usize::from(head(&it.copy)) == all;
    acked(world).count() == all && world.daemons.iter().all(has_all)
}
