//! What is wrong with a host, its router and its links, and what to do about it.

use serde::{Deserialize, Serialize};

use crate::{Call, Exit, Severity};

/// Examines host, router and links.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoctorRequest {}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Diagnosis {
    /// What was looked at, by id, sorted.
    pub checks: Vec<String>,
    /// What is wrong, worst first, then by id.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check that found it, such as `fastdp.port`: the same in all versions.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Diagnosis {
    /// Notes that something was looked at.
    pub fn check(&mut self, id: &str) {
        self.checks.push(id.to_owned());
    }

    /// Notes something that is wrong.
    pub fn find(&mut self, id: &str, severity: Severity, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding { id: id.to_owned(), severity, what: what.into(), remedy: remedy.into() });
    }

    /// Puts both lists into their documented order.
    pub fn sort(&mut self) {
        self.checks.sort();
        self.checks.dedup();
        self.findings.sort_by(|a, b| (a.severity, &a.id, &a.what).cmp(&(b.severity, &b.id, &b.what)));
        self.findings.dedup();
    }

    /// How a command that shows this ends: by the worst finding.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.findings.iter().map(|finding| finding.severity).min() {
            None => Exit::Ok,
            Some(Severity::Warning) => Exit::Warnings,
            Some(Severity::Error) => Exit::Failed,
        }
    }
}

impl Call for DoctorRequest {
    const PATH: &'static str = "/v1/doctor";
    type Answer = Diagnosis;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        let mut diagnosis = Diagnosis::default();
        assert_eq!(diagnosis.exit(), Exit::Ok);
        diagnosis.find("b", Severity::Warning, "x", "y");
        assert_eq!(diagnosis.exit(), Exit::Warnings);
        diagnosis.find("c", Severity::Error, "x", "y");
        diagnosis.sort();
        assert_eq!(diagnosis.exit(), Exit::Failed);
        assert_eq!(diagnosis.findings[0].id, "c");
    }
}
