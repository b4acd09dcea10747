//! `tailmark log migrate`.

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::super::output::print_line;
use super::super::terminal::progress_target;
use super::{Exit, Failure, Migrate};
use crate::escape;
use tailmark_log::storage::FORMAT_VERSION;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::migrate::{Error, Outcome, STEPS, Stage, migrate, plan};

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
    let bar = ProgressBar::with_draw_target(None, progress_target());
    bar.set_style(ProgressStyle::default_spinner());
    let outcome = migrate(dir, STEPS, FORMAT_VERSION, &Disk::real(), |stage| {
        bar.set_message(stage_text(stage));
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

fn stage_text(stage: Stage) -> String {
    match stage {
        Stage::Copying { to, bytes } => format!("copying to format {to}: {}", HumanBytes(bytes)),
        Stage::Verifying { to } => format!("verifying the copy in format {to}"),
        Stage::Swapping => "putting the copy in place".to_owned(),
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
