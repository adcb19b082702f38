//! One child process: its CPU time, its memory, the end of its log.
//!
//! It decides how they are read from `/proc`. It ends its own child, by its handle, and no other.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Length of one tick of `/proc/PID/stat`: Linux counts there in hundredths of a second on every
/// machine (`USER_HZ`, proc_pid_stat(5)).
const TICK: Duration = Duration::from_millis(10);

/// How much of its log is shown when a process fails, in bytes.
const LOG_TAIL: usize = 4096;

pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Runs `command` with both its outputs in the file `log`.
    pub(super) fn start(name: &str, mut command: Command, log: PathBuf) -> Result<Self> {
        let file = std::fs::File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting the {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the {} has ended, {status}\n{}", self.name, self.log_tail()),
        }
    }

    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]);
        match tail.trim() {
            "" => format!("the {} has said nothing", self.name),
            words => format!("the {} says:\n{words}", self.name),
        }
    }

    /// Returns the user and system time of all its threads.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // The second field is the program's name in brackets, and may contain spaces.
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let mut fields = fields.split(' ').skip(11);
        let mut ticks = || -> Result<u32> { Ok(fields.next().context("stat is short")?.parse()?) };
        Ok(TICK * (ticks()? + ticks()?))
    }

    /// Returns the resident memory in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
        Ok(kilobytes.parse::<u64>()? * 1024)
    }

    fn proc(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
            .with_context(|| format!("reading {file} of the {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only if the child has ended and been waited for already.
        let _ended = self.child.kill().and_then(|()| self.child.wait().map(drop));
    }
}
