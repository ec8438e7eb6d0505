//! Following one kind of objects through everything that an API server and the way to it do.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use kube::{
    Api, Client, Error as ClientError,
    api::{ApiResource, DynamicObject},
    runtime::watcher::{self, Config, Error, watcher},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use weave_policy::{Change, Direction, Policy, PolicyId, Selector};

use crate::{
    clock,
    cluster::{
        Mailbox,
        inbox::{Kind, ObjectId},
    },
    manifest::{self, Parsed},
};

/// How long the server is asked to keep a watch open, in seconds. A connection that died in silence is noticed five
/// seconds later.
const WATCH_FOR: u32 = 120;
/// How long a page of a list may take.
const PAGE_WITHIN: Duration = Duration::from_secs(60);
/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What went well for so long makes the next failure a first one.
const CALM: Duration = Duration::from_secs(120);

impl Kind {
    fn resource(self) -> ApiResource {
        let (group, kind, plural) = match self {
            Self::Namespaces => ("", "Namespace", "namespaces"),
            Self::Policies => ("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
            Self::Pods => ("", "Pod", "pods"),
        };
        let api_version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version,
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// As operators know it.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Policies => "networkpolicies",
            Self::Pods => "pods",
        }
    }
}

/// Tells `mailbox` of all objects of a kind, for ever. Whatever fails is tried again; what is known stays meanwhile.
pub(super) async fn follow(kind: Kind, client: Client, mailbox: Arc<Mailbox>) {
    let resource = kind.resource();
    let mut pauses = Pauses::default();
    loop {
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
        let mut events = pin!(watcher(api, Config::default().timeout(WATCH_FOR)));
        // The names in the list that is being read; none while nothing is listed.
        let mut seen = Some(BTreeSet::new());
        loop {
            let next = match &seen {
                None => Ok(events.next().await),
                Some(_) => timeout(PAGE_WITHIN, events.next()).await,
            };
            let (trouble, is_over) = match next {
                Ok(Some(Ok(event))) => {
                    let is_progress = !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
                    take_in(kind, event, &mut seen, &mailbox);
                    if is_progress {
                        pauses.restart();
                        mailbox.note_health(kind, None);
                    }
                    continue;
                }
                Ok(Some(Err(error))) => (format!("{error:#}"), is_too_old(&error)),
                Ok(None) => ("the stream ended".to_owned(), true),
                Err(_elapsed) => (format!("no answer within {PAGE_WITHIN:?}"), true),
            };
            mailbox.note_health(kind, Some(trouble));
            sleep(pauses.next(mailbox.seed())).await;
            if is_over {
                break;
            }
        }
    }
}

/// Whether the server has forgotten the version to go on from, and everything has to be listed again.
fn is_too_old(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(ClientError::Api(status)) if status.code == 410)
}

fn take_in(
    kind: Kind,
    event: watcher::Event<DynamicObject>,
    seen: &mut Option<BTreeSet<ObjectId>>,
    mailbox: &Mailbox,
) {
    match event {
        watcher::Event::Init => *seen = Some(BTreeSet::new()),
        watcher::Event::InitApply(object) => {
            if let Some(seen) = seen {
                seen.extend(name(kind, &object));
            }
            mailbox.put(read(kind, object));
        }
        watcher::Event::InitDone => mailbox.put_list(kind, seen.take().unwrap_or_default()),
        watcher::Event::Apply(object) => mailbox.put(read(kind, object)),
        watcher::Event::Delete(object) => mailbox.put(name(kind, &object).map(ObjectId::gone)),
    }
}

fn name(kind: Kind, object: &DynamicObject) -> Option<ObjectId> {
    let name = object.metadata.name.clone()?;
    let namespace = || object.metadata.namespace.clone();
    Some(match kind {
        Kind::Namespaces => ObjectId::Namespace(name),
        Kind::Policies => ObjectId::Policy(PolicyId::new(namespace()?, name)),
        Kind::Pods => ObjectId::Pod(weave_policy::PodId::new(namespace()?, name)),
    })
}

/// What an object means to us. One that cannot be read changes nothing; a policy that cannot be read isolates its whole
/// namespace instead, as nobody knows whom it is about.
fn read(kind: Kind, object: DynamicObject) -> Option<Change> {
    let id = name(kind, &object)?;
    let mut parsed = Parsed::default();
    let result = manifest::add(whole(kind, object), &mut parsed);
    for complaint in &parsed.complaints {
        tracing::warn!("{complaint}");
    }
    match (result, id) {
        (Ok(()), _) => parsed.objects.pop(),
        (Err(error), ObjectId::Policy(id)) => {
            tracing::warn!("policy {id} cannot be read, and isolates its whole namespace: {error:#}");
            let everybody = Selector::everything();
            let policy = Policy::with_types(id, everybody, Some(&Direction::ALL), Vec::new(), Vec::new());
            Some(Change::Policy(policy))
        }
        (Err(error), id) => {
            tracing::warn!("{id:?} cannot be read, and stays as it was: {error:#}");
            None
        }
    }
}

/// The object as a manifest has it, without what is of no interest.
fn whole(kind: Kind, object: DynamicObject) -> Value {
    let DynamicObject { metadata, mut data, .. } = object;
    if let Value::Object(fields) = &mut data {
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
        let metadata = json!({
            "name": metadata.name,
            "namespace": metadata.namespace,
            "labels": metadata.labels,
            "creationTimestamp": created,
        });
        fields.insert("metadata".to_owned(), metadata);
        fields.insert("kind".to_owned(), Value::String(kind.resource().kind));
    }
    data
}

/// How long to wait after failures.
#[derive(Debug, Default)]
struct Pauses {
    failures: u32,
    last: Option<std::time::Instant>,
}

impl Pauses {
    fn restart(&mut self) {
        self.failures = 0;
    }

    /// The next pause: between half and all of what the number of failures says, so that not all hosts ask at once.
    fn next(&mut self, seed: u64) -> Duration {
        let now = clock::now();
        if self.last.replace(now).is_some_and(|last| now.duration_since(last) > CALM) {
            self.failures = 0;
        }
        let whole = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        // One step of a linear congruential generator (Knuth, MMIX): any spread will do.
        let mixed = (seed ^ u64::from(self.failures)).wrapping_mul(6_364_136_223_846_793_005) >> 48;
        whole / 2 + whole.mul_f64(f64::from(u16::try_from(mixed).unwrap_or(0)) / 131_072.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_not_the_same_on_all_hosts() {
        let (mut some, mut others) = (Pauses::default(), Pauses::default());
        let (a, b): (Vec<_>, Vec<_>) = (0..20).map(|_| (some.next(1), others.next(2))).unzip();
        assert!(a[0] >= FIRST_PAUSE / 2 && a[0] <= FIRST_PAUSE);
        assert!(a[19] >= LONGEST_PAUSE / 2 && a[19] <= LONGEST_PAUSE);
        assert_ne!(a, b);
        some.restart();
        assert!(some.next(1) <= FIRST_PAUSE);
    }

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_object_without_its_kind_is_read_by_the_list_that_it_is_in() {
        let pod = object(json!({
            "metadata": {"name": "p", "namespace": "x", "labels": {"app": "a"},
                "creationTimestamp": "2024-05-06T07:08:09Z", "managedFields": [{"manager": "m"}]},
            "spec": {"nodeName": "here", "containers": [{"image": "i", "ports": [{"name": "web", "containerPort": 80}]}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}]},
        }));
        let Some(Change::Pod(pod)) = read(Kind::Pods, pod) else { panic!("a pod") };
        assert_eq!((pod.created, pod.node.as_str()), (20_240_506_070_809, "here"));
        assert_eq!((pod.addresses.len(), pod.ports.len(), pod.labels.len()), (1, 1, 1));
    }

    #[test]
    fn a_policy_that_cannot_be_read_isolates_its_namespace() {
        let policy = object(json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {"ingress": 7}}));
        let Some(Change::Policy(policy)) = read(Kind::Policies, policy) else { panic!("a policy") };
        assert_eq!(policy.subject, Selector::everything());
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), Some(vec![])));
        let pod = object(json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {"nodeName": 7}}));
        assert_eq!(read(Kind::Pods, pod), None);
    }
}
