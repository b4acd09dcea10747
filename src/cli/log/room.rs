//! How much of the disk a command leaves free where it makes a log.

use super::Failure;
use tailmark_log::storage::local::Options;
use tailmark_record::units::parse_size;

/// For commands that make a log of another.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Room {
    /// Leave so much of the disk free, 0 for nothing. A daemon on the new log leaves what its own setting
    /// storage.min_free_bytes says
    #[arg(long, value_name = "SIZE", default_value = "256 MiB", value_parser = parse_size)]
    min_free_bytes: u64,
}

impl Room {
    /// What the log is made with.
    pub(in crate::cli) fn options(&self) -> Options {
        Options { min_free_bytes: self.min_free_bytes, ..Options::default() }
    }

    /// Says what to do if there was too little.
    pub(in crate::cli) fn hint(&self, failure: impl Into<Failure>) -> Failure {
        failure.into().hint_of_room(match self.min_free_bytes {
            0 => "free space on that disk, or name a directory on a larger one",
            _ => {
                "free space on that disk, or name a directory on a larger one; --min-free-bytes 0 leaves nothing free, and a \
                 daemon stores nothing there before it has room for its storage.min_free_bytes"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        room: Room,
    }

    #[test]
    fn by_default_it_leaves_what_a_daemon_does() {
        let room = Command::parse_from(["it"]).room;
        assert_eq!(room.options().min_free_bytes, Options::default().min_free_bytes);
        let room = Command::parse_from(["it", "--min-free-bytes", "1 MiB"]).room;
        assert_eq!(room.options().min_free_bytes, 1 << 20);
    }
}
