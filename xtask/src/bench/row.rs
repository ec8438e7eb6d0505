//! One figure, its rival's, and how they compare.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

/// Which way a unit is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

/// A line of the bench's output.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rival: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rival_value: Option<f64>,
    /// Ours over the rival's, or the other way where less is better: 1 and more is at least as good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
    pub(super) rounds: usize,
    /// (largest - smallest) / median of ours.
    pub(super) spread: f64,
    #[serde(skip)]
    pub(super) better: Better,
}

impl Row {
    /// The median of `ours`, without a rival.
    pub(super) fn new(name: &str, unit: &'static str, better: Better, ours: &[f64]) -> Self {
        let value = median(ours);
        let largest = ours.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let smallest = ours.iter().copied().fold(f64::INFINITY, f64::min);
        let spread = if value > 0.0 { (largest - smallest) / value } else { 0.0 };
        Self {
            name: name.to_owned(),
            value,
            unit,
            rival: None,
            rival_value: None,
            ratio: None,
            rounds: ours.len(),
            spread,
            better,
        }
    }

    /// Sets the rival's figures, taken in the same rounds as ours.
    #[must_use]
    pub(super) fn against(mut self, rival: &'static str, theirs: &[f64]) -> Self {
        self.versus(rival, median(theirs));
        self
    }

    /// Sets the rival to one figure.
    pub(super) fn versus(&mut self, rival: &'static str, value: f64) {
        let ratio = match self.better {
            Better::More => self.value / value,
            Better::Less => value / self.value,
        };
        self.rival = Some(rival);
        self.rival_value = Some(value);
        self.ratio = ratio.is_finite().then_some(ratio);
    }

    pub(super) fn json(&self) -> Result<String> {
        let mut row = self.clone();
        for value in [&mut row.value, &mut row.spread] {
            *value = rounded(*value);
        }
        row.rival_value = row.rival_value.map(rounded);
        row.ratio = row.ratio.map(rounded);
        Ok(serde_json::to_string(&row)?)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<30} {:>12} {:<9}", self.name, figure(self.value), self.unit)?;
        match (self.rival, self.rival_value, self.ratio) {
            (Some(rival), Some(value), Some(ratio)) => {
                write!(f, " {:>12} {rival:<16} ratio {ratio:>6.3}", figure(value))?;
            }
            _ => write!(f, " {:>42}", "")?,
        }
        write!(f, "  {} rounds, spread {:.2}", self.rounds, self.spread)
    }
}

/// The middle of `values`, or the mean of the two in the middle; zero when there are none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Four significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn figure(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_good_for_throughput_and_for_time() {
        let throughput = Row::new("a", "Gbit/s", Better::More, &[8.0, 10.0, 9.0]).against("rival", &[18.0]);
        assert_eq!((throughput.value, throughput.ratio), (9.0, Some(0.5)));
        assert!((throughput.spread - 2.0 / 9.0).abs() < 1e-9);
        let time = Row::new("b", "us", Better::Less, &[30.0, 50.0]).against("rival", &[80.0]);
        assert_eq!(time.ratio, Some(2.0));
    }

    #[test]
    fn json_carries_no_rival_where_there_is_none() {
        let row = Row::new("a", "s", Better::Less, &[1.23456]);
        assert_eq!(row.json().unwrap(), r#"{"name":"a","value":1.235,"unit":"s","rounds":1,"spread":0.0}"#);
    }
}
