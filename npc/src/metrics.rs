//! What Prometheus scrapes: the names that Weave Net's controller has always had, and what it could not count.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::blocked::Tally;

/// The state at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What was blocked.
    pub blocked: Tally,
    /// Times that something could not be brought into the kernel at the first attempt.
    pub errors: u64,
    /// Transactions that changed the kernel.
    pub changes: u64,
    /// Seconds that the last of them took, from the source's news to the kernel's word.
    pub last_change_seconds: f64,
    /// Objects and elements, by name.
    pub counts: Vec<(&'static str, &'static str, usize)>,
    /// Whether everything that is known is in force.
    pub is_in_force: bool,
    /// Kinds of objects of which no news come.
    pub troubled: Vec<&'static str>,
}

impl Snapshot {
    /// The exposition, in the text format of OpenMetrics.
    ///
    /// # Errors
    /// Never, as far as we know: writing to a string does not fail.
    pub fn exposition(self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut exposition = String::new();
        text::encode(&mut exposition, &registry)?;
        Ok(exposition)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut blocked = encoder.encode_descriptor(
            "weavenpc_blocked_connections",
            "Connection attempts blocked by policy controller",
            None,
            MetricType::Counter,
        )?;
        for (series, packets) in &self.blocked.packets_by_series {
            let labels = [
                ("protocol", series.protocol.as_str()),
                ("dport", series.port.as_str()),
                ("direction", series.direction),
            ];
            let one = blocked.encode_family(&labels)?;
            ConstCounter::new(*packets).encode(one)?;
        }
        let counters = [
            (
                "weavenpc_policy_enforcement_errors",
                "Times that the kernel could not be brought up to date at once",
                self.errors,
            ),
            ("weavenpc_changes", "Transactions that changed the kernel's sets", self.changes),
            (
                "weavenpc_blocked_losses",
                "Times that more was blocked than could be counted",
                self.blocked.losses,
            ),
        ];
        for (name, help, value) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
        let counts = self.counts.iter().map(|(name, help, count)| (*name, *help, *count as f64));
        let more = [
            (
                "weavenpc_in_force",
                "1 when everything that is known is in force",
                f64::from(u8::from(self.is_in_force)),
            ),
            ("weavenpc_last_change_seconds", "How long the last change took", self.last_change_seconds),
        ];
        for (name, help, value) in counts.chain(more) {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let mut troubles = encoder.encode_descriptor(
            "weavenpc_api_unavailable",
            "1 for a kind of objects of which the API server tells nothing at present",
            None,
            MetricType::Gauge,
        )?;
        for kind in ["namespaces", "networkpolicies", "pods"] {
            let labels = [("kind", kind)];
            let one = troubles.encode_family(&labels)?;
            ConstGauge::new(f64::from(u8::from(self.troubled.contains(&kind)))).encode(one)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocked::Series;

    #[test]
    fn the_original_names_are_there() {
        let series = Series { protocol: "tcp".to_owned(), port: "80".to_owned(), direction: "ingress" };
        let snapshot = Snapshot {
            blocked: Tally { packets_by_series: [(series, 3)].into(), losses: 0 },
            errors: 1,
            counts: vec![("weavenpc_pods", "Pods known", 7)],
            is_in_force: true,
            troubled: vec!["pods"],
            ..Snapshot::default()
        };
        let text = snapshot.exposition().unwrap();
        for line in [
            r#"weavenpc_blocked_connections_total{protocol="tcp",dport="80",direction="ingress"} 3"#,
            "weavenpc_policy_enforcement_errors_total 1",
            "weavenpc_pods 7.0",
            "weavenpc_in_force 1.0",
            r#"weavenpc_api_unavailable{kind="pods"} 1.0"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }
}
