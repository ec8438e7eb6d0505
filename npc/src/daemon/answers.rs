//! What the daemon answers to those who ask.

use weave_policy::{Change, Scope, World};

use super::Daemon;
use crate::{cluster::Kind, control::Request, expected::Expected, explain::explanations, metrics::Snapshot};

impl Daemon {
    pub(super) fn answer(&mut self, request: &Request) -> String {
        match request {
            Request::Sync => self.sync(),
            Request::Status => self.status(),
            Request::Metrics => self.metrics(),
            Request::Explain(ends, traffic) => {
                let said = self.with_expected(|world, scope| explanations(world, scope, ends, *traffic));
                said.unwrap_or_else(|error| format!("error: {error:#}\n"))
            }
            Request::Expect(pod, addresses) => match self.expect(pod, addresses) {
                Ok(()) => "isolated\n".to_owned(),
                Err(error) => format!("error: {error:#}\n"),
            },
        }
    }

    fn sync(&mut self) -> String {
        if let Err(error) = self.source.catch_up() {
            return format!("error: {error:#}\n");
        }
        match self.refresh() {
            Ok(()) if self.retry_at.is_none() => match self.waits_for() {
                None => "in force\n".to_owned(),
                Some(kinds) => format!("error: {kinds} are not known yet\n"),
            },
            Ok(()) => "error: the kernel is not up to date; see the log\n".to_owned(),
            Err(error) => {
                let text = format!("error: {error:#}\n");
                self.note("taking news in", Err(error));
                text
            }
        }
    }

    /// The kinds of objects that are not all known yet.
    pub(super) fn waits_for(&self) -> Option<String> {
        let missing = self.readiness.missing();
        (!missing.is_empty()).then(|| list(missing))
    }

    fn status(&self) -> String {
        let World { namespaces, pods, policies } = &self.world;
        let state = match self.waits_for() {
            Some(kinds) => format!("waiting for {kinds}"),
            None if self.retry_at.is_some() => "trying again after an error".to_owned(),
            None => "in force".to_owned(),
        };
        let troubled = self.source.troubled();
        let source =
            if troubled.is_empty() { String::new() } else { format!("no news of: {}\n", list(&troubled)) };
        format!(
            "state: {state}\n{source}namespaces: {}\npods: {}\npolicies: {}\nelements: {}\nold connections judged: {}\n",
            namespaces.len(),
            pods.len(),
            policies.len(),
            self.kernel.facts().len(),
            if self.kernel.is_judging() { "yes" } else { "no" },
        )
    }

    fn metrics(&self) -> String {
        let World { namespaces, pods, policies } = &self.world;
        let snapshot = Snapshot {
            blocked: self.blocked.tally(),
            errors: self.errors,
            changes: self.changes,
            last_change_seconds: self.last_change.as_secs_f64(),
            counts: vec![
                ("weavenpc_namespaces", "Namespaces known", namespaces.len()),
                ("weavenpc_pods", "Pods known", pods.len()),
                ("weavenpc_policies", "Policies known", policies.len()),
                ("weavenpc_elements", "Elements of the kernel's sets", self.kernel.facts().len()),
            ],
            is_in_force: self.is_in_force && self.retry_at.is_none() && self.waits_for().is_none(),
            troubled: self.source.troubled().into_iter().map(Kind::plural).collect(),
        };
        snapshot.exposition().unwrap_or_default()
    }

    /// Looks at the world with the pods that are only expected in it.
    pub(super) fn with_expected<T>(&mut self, look: impl FnOnce(&World, &Scope) -> T) -> T {
        // What is only expected is there for as long as this takes.
        self.world.apply(Change::Policy(Expected::policy()));
        let mut replaced = Vec::new();
        for (id, pod) in &self.overlay {
            let before = self.world.pods.insert(id.clone(), pod.clone());
            replaced.push(before.map_or_else(|| Change::PodGone(id.clone()), Change::Pod));
        }
        let seen = look(&self.world, &self.scope);
        replaced.into_iter().for_each(|change| self.world.apply(change));
        self.world.apply(Change::PolicyGone(Expected::policy().id));
        seen
    }
}

fn list(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.plural()).collect::<Vec<_>>().join(", ")
}
