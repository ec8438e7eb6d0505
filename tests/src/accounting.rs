//! What runs cost: the machine's processor time, a process's memory.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Ticks per second in `/proc` (`USER_HZ`, fixed in the kernel's interface on all architectures we build for).
const TICKS_PER_S: f64 = 100.0;

/// Processor time of the whole machine since it started.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    busy: u64,
}

impl Machine {
    /// Reads it from `/proc/stat`: user, nice, system, hard and soft interrupts; not idle, waiting or stolen time.
    ///
    /// # Errors
    /// When the file is not as expected.
    pub fn read() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat")?)
    }

    fn parse(text: &str) -> Result<Self> {
        let line =
            text.lines().next().and_then(|l| l.strip_prefix("cpu ")).context("/proc/stat has no cpu line")?;
        let fields: Vec<u64> = line.split_whitespace().map_while(|f| f.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else {
            anyhow::bail!("/proc/stat has too few fields: {line}");
        };
        Ok(Self { busy: user + nice + system + irq + softirq })
    }

    /// Processor seconds spent since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> f64 {
        self.busy.saturating_sub(earlier.busy) as f64 / TICKS_PER_S
    }
}

/// Processor seconds that process `pid` has used, in user and kernel mode, all threads.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    // The second field is the name in parentheses and may contain anything.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat is not as expected")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |i: usize| -> Result<f64> { Ok(fields.get(i).context("a field is missing")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_S)
}

/// Memory that process `pid` has in RAM now, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("no process {pid}"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("the process has ended")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// The machine's idle load: processor seconds per second while nothing of ours works, over `window`.
///
/// # Errors
/// As [`Machine::read`].
pub fn idle_load(window: Duration) -> Result<f64> {
    let before = Machine::read()?;
    let start = crate::clock::now();
    crate::clock::pause(window);
    Ok(Machine::read()?.since(before) / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_do_not_count_as_work() {
        let before = Machine::parse("cpu  10 0 10 500 9 1 4 99 0 0\n").unwrap();
        let after = Machine::parse("cpu  60 0 40 900 99 1 24 999 0 0\n").unwrap();
        assert!((after.since(before) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn our_own_memory_and_time_can_be_read() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }
}
