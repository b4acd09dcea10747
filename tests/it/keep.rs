//! Copies of a log that are kept: what comes back is the same log, and who is beyond it is told.

mod backups;
mod codes;
mod compacting;
mod cut_backups;
mod differences;
mod ends;
mod erased;
mod exports;
mod fetched;
mod killed;
mod marks;
mod meanwhile;
mod moved;
mod one_file;
mod points;
mod pruned;
mod put_back;
mod rotten;
mod salvage;
mod shared_copies;
mod unerased;
mod untrimmed;
