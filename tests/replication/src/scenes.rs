//! What is checked: each scene lets a few kinds of trouble meet, and is searched to its end.

use crate::world::Scene;

/// Nothing but what every scene has: daemons at their own pace, publishes and answers that are
/// late or lost.
const CALM: Scene = Scene {
    ops: 0,
    sends: 1,
    takeovers: 0,
    asks: 0,
    crashes: 0,
    elections: 0,
    cuts: 0,
    rollbacks: 0,
    proofs: 0,
    repairs: 0,
    has_stray_replica: false,
    foreign: 0,
    purges: 0,
    followers: 1,
    in_flight: 1,
};

/// Writers that come and go, and clients that try again elsewhere.
pub const TAKEOVER: Scene = Scene { ops: 2, sends: 2, takeovers: 2, elections: 1, ..CALM };

/// Two commits in flight, a writer that is relieved, and a foreign message.
pub const PIPELINE: Scene =
    Scene { ops: 2, takeovers: 1, elections: 1, foreign: 1, in_flight: 2, ..CALM };

/// Daemons that are killed, with and without their copy.
pub const CRASH: Scene = Scene { ops: 2, sends: 2, takeovers: 1, crashes: 1, ..CALM };

/// A leader of the journal that was cut off, and the daemon at it that goes on believing.
pub const CUT: Scene = Scene { ops: 2, takeovers: 1, cuts: 1, proofs: 2, ..CALM };

/// Questions about the head.
pub const QUESTIONS: Scene = Scene { ops: 2, takeovers: 1, asks: 1, ..CALM };

/// Questions about the head, beside a leader that was cut off.
pub const CUT_QUESTIONS: Scene = Scene { ops: 1, takeovers: 1, asks: 1, cuts: 1, ..CALM };

/// A snapshot that is put back.
pub const ROLLBACK: Scene = Scene { ops: 2, takeovers: 1, rollbacks: 1, proofs: 2, ..CALM };

/// The same with two commits in flight.
pub const PIPELINE_ROLLBACK: Scene = Scene { in_flight: 2, proofs: 1, ..ROLLBACK };

/// What was lost with a snapshot is appended again.
pub const REPAIR: Scene = Scene { repairs: 1, proofs: 1, ..ROLLBACK };

/// A snapshot that is put back, and a replica that was not put back and keeps what the others lost.
pub const STRAY: Scene =
    Scene { ops: 2, takeovers: 1, rollbacks: 1, proofs: 1, has_stray_replica: true, ..CALM };

/// Messages of others, and purges beyond the end.
pub const OTHERS: Scene = Scene { ops: 2, takeovers: 1, foreign: 1, purges: 1, ..CALM };

/// The same for a writer that nobody relieves.
pub const OTHERS_ALONE: Scene = Scene { takeovers: 0, ..OTHERS };

/// All that are searched to their end, by name.
pub const ALL: [(&str, Scene); 11] = [
    ("takeover", TAKEOVER),
    ("pipeline", PIPELINE),
    ("crash", CRASH),
    ("cut", CUT),
    ("questions", QUESTIONS),
    ("questions, cut off", CUT_QUESTIONS),
    ("rollback", ROLLBACK),
    ("pipeline, rollback", PIPELINE_ROLLBACK),
    ("repair", REPAIR),
    ("stray", STRAY),
    ("others", OTHERS),
];

/// What takes minutes, and some gigabytes.
pub const LARGE: [(&str, Scene); 7] = [
    ("three daemons", Scene { followers: 2, sends: 1, elections: 0, ..TAKEOVER }),
    ("pipeline of three", Scene { ops: 3, elections: 0, ..PIPELINE }),
    ("pipeline and crash", Scene { crashes: 1, foreign: 0, ..PIPELINE }),
    ("pipeline and cut", Scene { in_flight: 2, ..CUT }),
    ("rollback and crash", Scene { crashes: 1, ..ROLLBACK }),
    ("cut and crash", Scene { crashes: 1, ..CUT }),
    ("questions to three", Scene { followers: 2, ops: 1, ..QUESTIONS }),
];
