//! The rules of the protocol, one by one, so that each can be taken out.

/// A rule. Whoever writes a journal has all of them; the tests take out one at a time.
///
/// The first word of each is where it belongs: appending, taking over, answering, following, or
/// what is done when the journal has lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Append: each publish names the last sequence N that its writer knows, and the journal
    /// stores it at N+1 or not at all. There is no other fence: no lease, no lock, no clock.
    CompareAndSwap,
    /// Append: durable is what was acknowledged at exactly N+1.
    AckNamesItsPlace,
    /// Append: nothing is applied, shown or answered before it is durable.
    DurableBeforeShown,
    /// Append: no answer in time is no answer. The commit is *in doubt*: stored, or not, or later.
    NoAnswerIsDoubt,
    /// Append: a commit in doubt is published again as the same bytes with the same N, until
    /// something is known of N+1.
    SameBytesSamePlace,
    /// Append: a commit in doubt is not given up for another, also after its caller was told that
    /// the outcome is unknown.
    DoubtIsKept,
    /// Append: a commit that is in flight behind another is durable only when that one is. Its own
    /// ack proves nothing: another's message may be where the first was to be. It is forgotten
    /// where the connection is made anew.
    AcksInOrder,
    /// Append: what was refused is staged anew alone, and what is behind it follows when it is
    /// durable. Together the second would be stored where the first is refused, again and again.
    RefusedGoesAlone,
    /// Append: a refusal with an end beyond N says nothing yet. N+1 is read, and is the commit's
    /// own if it carries its nonce.
    ReadWhoseItIs,
    /// Append: where the end is beyond N and N+1 cannot be read, the commit is still in doubt: a
    /// leader counts what it proposes, not what is stored.
    UnreadableIsDoubt,
    /// Append: a TERM frame that is not the writer's own ends its term. It steps down.
    FencedByTerm,
    /// Append: a message that is no frame is passed over, and the commit staged anew behind it.
    ForeignIsSkipped,
    /// Append: where the first sequence lies beyond N+1, somebody purged beyond the end, which
    /// takes what N+1 was and moves the end. That was the commit, a TERM frame, or nothing: nobody
    /// can tell. The writer stops as for a loss.
    PurgedEndStops,
    /// Take over: a writer begins with a TERM frame, appended like any commit. Whose is stored at
    /// N+1 is the writer.
    TermIsAppended,
    /// Take over: each term is a generation of its own in the table that cursors are looked up in.
    TermIsAGeneration,
    /// Take over: the frame at the own last place is read back from the stream's leader first. What
    /// the tail brought may come from a replica with other bytes, and the compare-and-swap looks
    /// at sequences, not at what is there.
    TermReadsBack,
    /// Take over: only after a silence that is longer than any writer trusts its last ack.
    SilenceFirst,
    /// Take over: what tells repeats follows from the frames of all writers, not from one's own.
    WindowFollows,
    /// Answer: a repeat is told only of what is durable.
    RepeatsAreDurable,
    /// Answer: what depends on the head waits for the commit that is in flight: others may have
    /// read it before its writer hears of it.
    InFlightFirst,
    /// Answer: what depends on the head is true of a writer only if a commit of its own was stored
    /// just now. Otherwise it appends an empty one, and answers when that is durable.
    ConfirmedByCommit,
    /// Answer: what the stream says of itself proves nothing. Whoever believes to lead answers.
    InfoIsNoProof,
    /// Answer: a daemon that follows has caught up when it has delivered up to a head that the
    /// writer confirmed after the watch began, not up to the head that it knows.
    CaughtUpIsConfirmed,
    /// Answer: a cursor beyond the local head, or of a generation that is not known here yet, is
    /// AHEAD or DIVERGED only after the writer confirmed it.
    AheadIsConfirmed,
    /// Follow: messages are taken one after the other; where one is missing, the tail is made anew
    /// at the own position.
    TailHasNoHoles,
    /// Follow: a frame is taken only if the chain of the one before it is the own chain.
    FramesJoin,
    /// Follow: a frame that does not join is read again from the leader. If it does not join there
    /// either, and the own last frame is still there, it counts for nobody and is passed over.
    DeadIsPassed,
    /// Lost: on each connection made anew nothing is taken, shown or published before the frame at
    /// the own last place has been read back with the own chain.
    RejoinByChain,
    /// Lost: an end before N may be an old leader's. It is a loss only once an empty commit after
    /// that end is *acknowledged*.
    LossIsProven,
    /// Lost: what was lost is appended again from a copy, with its generations and seqs, only as long
    /// as nothing but proofs was appended since.
    ReappendedFirst,
    /// Lost: a daemon that found a loss appends nothing until somebody decides.
    DivergedStops,
}

use Rule::*;

/// All of them, in the order in which a commit meets them.
pub const ALL: [Rule; 31] = [
    CompareAndSwap,
    AckNamesItsPlace,
    DurableBeforeShown,
    NoAnswerIsDoubt,
    SameBytesSamePlace,
    DoubtIsKept,
    AcksInOrder,
    RefusedGoesAlone,
    ReadWhoseItIs,
    UnreadableIsDoubt,
    FencedByTerm,
    ForeignIsSkipped,
    PurgedEndStops,
    TermIsAppended,
    TermIsAGeneration,
    TermReadsBack,
    SilenceFirst,
    WindowFollows,
    RepeatsAreDurable,
    InFlightFirst,
    ConfirmedByCommit,
    InfoIsNoProof,
    CaughtUpIsConfirmed,
    AheadIsConfirmed,
    TailHasNoHoles,
    FramesJoin,
    DeadIsPassed,
    RejoinByChain,
    LossIsProven,
    ReappendedFirst,
    DivergedStops,
];

/// The rules in force: all but those taken out.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    without: Vec<Rule>,
}

impl Rules {
    /// All rules but these.
    pub fn without(rules: &[Rule]) -> Rules {
        Rules { without: rules.to_vec() }
    }

    /// Whether a rule is in force.
    pub fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }
}
