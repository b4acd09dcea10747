//! What the daemon's process takes, over time.

use std::fmt::Write as _;
use std::time::Duration;

/// The listener, and what tokio and the shell left open.
pub const QUIET_SOCKETS: usize = 6;

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub seconds: f64,
    pub rss_mib: f64,
    pub threads: f64,
    pub descriptors: f64,
    pub events: u64,
    /// Counts up with each start of the daemon.
    pub life: usize,
}

/// One figure of a sample.
pub type Figure = fn(&Sample) -> f64;

#[derive(Debug, Default)]
pub struct Samples {
    pub all: Vec<Sample>,
    /// When the daemon was started again.
    pub restarts: Vec<f64>,
    pub reloads: u64,
    /// What clients did, in words.
    pub done: String,
}

/// Open sockets of a process.
pub fn sockets(pid: u32) -> usize {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

impl Samples {
    pub fn take(&mut self, at: Duration, pid: u32, events: u64) {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return };
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let (Some(rss), Some(threads)) = (number("VmRSS:"), number("Threads:")) else { return };
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        self.all.push(Sample {
            seconds: at.as_secs_f64(),
            rss_mib: rss / 1024.0,
            threads,
            descriptors: entries.count() as f64,
            events,
            life: self.restarts.len(),
        });
    }

    pub fn restart(&mut self, at: Duration) {
        self.restarts.push(at.as_secs_f64());
    }

    pub fn csv(&self) -> String {
        let mut csv = "seconds,rss_mib,threads,descriptors,events,life\n".to_owned();
        for Sample { seconds, rss_mib, threads, descriptors, events, life } in &self.all {
            let _ =
                writeln!(csv, "{seconds:.2},{rss_mib:.1},{threads},{descriptors},{events},{life}");
        }
        csv
    }

    pub fn summary(&self) -> String {
        let (restarts, reloads) = (self.restarts.len(), self.reloads);
        let seconds = self.all.last().map_or(0.0, |last| last.seconds);
        let most = |of: Figure| self.all.iter().map(of).fold(0.0, f64::max);
        let (rss, threads) = (most(|one| one.rss_mib), most(|one| one.threads));
        let descriptors = most(|one| one.descriptors);
        format!(
            "{seconds:.0} s, {restarts} restarts, {reloads} reloads; {}; at most {rss:.0} MiB, {threads} threads, \
             {descriptors} descriptors",
            self.done
        )
    }

    /// In the longest life of the daemon the last third is where the middle one was.
    pub fn check(&self) {
        let of_life = |life: usize| self.all.iter().filter(move |one| one.life == life);
        let length = |life: usize| of_life(life).count();
        let Some(life) = (0..=self.restarts.len()).max_by_key(|life| length(*life)) else { return };
        let life: Vec<&Sample> = of_life(life).collect();
        let (Some(first), Some(last)) = (life.first(), life.last()) else { return };
        if last.seconds - first.seconds < 120.0 {
            println!("  lives of {:.0} s say nothing of leaks", last.seconds - first.seconds);
            return;
        }
        let third = life.len() / 3;
        let median = |of: Figure, from: usize| {
            let mut values: Vec<f64> = life[from..from + third].iter().map(|one| of(one)).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let checks: [(&str, Figure, f64); 3] = [
            ("MiB", |one| one.rss_mib, 12.0),
            ("threads", |one| one.threads, 2.0),
            ("descriptors", |one| one.descriptors, 12.0),
        ];
        for (what, of, slack) in checks {
            let (middle, end) = (median(of, third), median(of, 2 * third));
            println!("  {what}: median {middle:.1} in the middle third, {end:.1} in the last");
            assert!(end <= middle * 1.1 + slack, "{what} grew from {middle} to {end}");
        }
    }
}
