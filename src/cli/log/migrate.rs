//! `tailmark log migrate`.

use indicatif::HumanBytes;

use super::super::output::print_line;
use super::super::progress::{self, show};
use super::{Exit, Failure, Migrate};
use crate::escape;
use tailmark_log::storage::FORMAT_VERSION;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::migrate::{Error, Outcome, Progress, STEPS, Stage, migrate, plan};

pub(super) fn run(args: &Migrate) -> Result<(), Failure> {
    let dir = &args.data_dir.path;
    if args.dry_run {
        let plan = plan(dir, STEPS, FORMAT_VERSION)?;
        if plan.is_empty() {
            return print_line(&up_to_date(plan.found));
        }
        let formats: Vec<_> = plan.formats().iter().map(u32::to_string).collect();
        return print_line(&format!(
            "format {} would be copied forward to {}; that takes up to {} beside it",
            plan.found,
            formats.join(", then "),
            HumanBytes(plan.needed_bytes),
        ));
    }
    let template = "{msg} {wide_bar} {percent}% {human_pos}/{human_len} events, {per_sec}, {eta}";
    let bar = progress::bar(None, template);
    let mut last = String::new();
    let outcome = migrate(dir, STEPS, FORMAT_VERSION, &Disk::real(), |stage| {
        let (text, progress) = stage_text(stage);
        if text != last {
            // Its own rate and time.
            bar.reset();
            bar.set_message(text.clone());
            last = text;
        }
        if let Some(Progress { done, of }) = progress {
            show(&bar, done, of);
        }
        bar.tick();
    });
    bar.finish_and_clear();
    match outcome? {
        Outcome::UpToDate { version } => print_line(&up_to_date(version)),
        Outcome::Migrated { from, to, kept } => print_line(&format!(
            "format {from} was brought to {to} and verified; the log as it was is in {}, yours to \
             delete",
            escape::name(&kept.display().to_string())
        )),
    }
}

fn up_to_date(version: u32) -> String {
    format!("format {version} is the newest: nothing to do")
}

fn stage_text(stage: Stage) -> (String, Option<Progress>) {
    match stage {
        Stage::Copying { to, progress } => (format!("copying to format {to}"), Some(progress)),
        Stage::Verifying { to, progress } => {
            (format!("verifying the copy in format {to}"), Some(progress))
        }
        Stage::Swapping => ("putting the copy in place".to_owned(), None),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            error => Failure::new(Exit::Failure, error.to_string())
                .hint("an earlier version of this program can bring it part of the way"),
        }
    }
}
