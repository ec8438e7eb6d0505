//! The committed figures of an earlier run, `bench/baseline.json`: what is measured against itself has them as rival, and a
//! figure that is worse by more than the spread is named.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::row::{Better, Row};

/// The least change that counts, whatever the spread: a single round has none.
const NOISE: f64 = 0.10;

/// Figures by name, and where they were taken.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Baseline {
    /// The machine, for people: figures of another one say little.
    machine: String,
    /// Figures in the units of the bench.
    values: BTreeMap<String, f64>,
}

impl Baseline {
    pub(super) fn read() -> Result<Self> {
        match fs::read_to_string(path()) {
            Ok(text) => {
                serde_json::from_str(&text).with_context(|| format!("{} is damaged", path().display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path().display())),
        }
    }

    /// Makes the earlier figure the rival of a row that has none.
    pub(super) fn compare(&self, row: &mut Row) {
        if let (None, Some(before)) = (row.rival, self.values.get(&row.name)) {
            row.versus("baseline", *before);
        }
    }

    /// The earlier figure, when the row is worse than it by more than the spread.
    pub(super) fn regression(&self, row: &Row) -> Option<f64> {
        let before = *self.values.get(&row.name)?;
        let worse = match row.better {
            Better::More => before / row.value,
            Better::Less => row.value / before,
        };
        (worse > 1.0 + row.spread.max(NOISE)).then_some(before)
    }

    /// Replaces the figures of `rows` and keeps the others.
    pub(super) fn write(&mut self, rows: &[Row]) -> Result<()> {
        self.machine = machine();
        self.values.extend(rows.iter().map(|r| (r.name.clone(), r.value)));
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        if let Some(directory) = path().parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path(), text).with_context(|| format!("cannot write {}", path().display()))
    }
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/baseline.json"))
}

fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let models: Vec<&str> = cpuinfo.lines().filter(|l| l.starts_with("model name")).collect();
    let model = models.first().and_then(|l| l.split_once(": ")).map_or("unknown", |(_, m)| m);
    format!("{} x {model}, Linux {}", models.len(), read("/proc/sys/kernel/osrelease").trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_for_the_worse_beyond_the_spread_is_a_regression() {
        let values = BTreeMap::from([("speed".to_owned(), 10.0), ("time".to_owned(), 10.0)]);
        let baseline = Baseline { machine: String::new(), values };
        let speed = |v: &[f64]| baseline.regression(&Row::new("speed", "Gbit/s", Better::More, v));
        let time = |v: &[f64]| baseline.regression(&Row::new("time", "s", Better::Less, v));
        assert_eq!((speed(&[20.0]), time(&[5.0])), (None, None), "better");
        assert_eq!((speed(&[9.5]), time(&[10.5])), (None, None), "noise");
        assert_eq!((speed(&[5.0]), time(&[20.0])), (Some(10.0), Some(10.0)), "worse");
        assert_eq!(time(&[8.0, 15.0, 22.0]), None, "worse, and within the spread");
    }
}
