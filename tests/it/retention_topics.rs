//! Retention by topic, as users meet it: its settings, what it tells of itself, and what it does to a log that is
//! read and written meanwhile. What watches hear of it is in `watch/removed.rs`.

mod asking;
mod carried_out;
mod clients;
mod put_back;
mod settings;
