//! The API server: every call that this program makes. The roles in `manifests/` allow exactly these.

use std::{future::Future, path::Path, time::Duration};

use anyhow::Context as _;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Node},
};
use kube::{
    Api, Client, Error,
    api::{ListParams, PartialObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::{clock, peers::Nodes};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a connection may take to come about. While a node starts, the API server's Service leads nowhere: what is sent there
/// is lost, until kube-proxy has told the kernel where it is, and only a new connection finds out.
const CONNECT: Duration = Duration::from_secs(3);

/// Objects asked for at a time.
const PAGE: u32 = 500;

/// The names of the objects that the nodes share.
const SHARED: &str = "weave-net";

/// Which calls are made: verb, resource, and the one object where it is always the same. A test compares this with the
/// roles in the manifests, and another with what the server was asked.
pub const CALLS: [(&str, &str, Option<&str>); 9] = [
    ("list", "nodes", None),
    ("watch", "nodes", None),
    ("patch", "nodes/status", None),
    ("get", "configmaps", Some(SHARED)),
    ("update", "configmaps", Some(SHARED)),
    ("create", "configmaps", None),
    ("get", "leases", Some(SHARED)),
    ("update", "leases", Some(SHARED)),
    ("create", "leases", None),
];

/// Whether an update was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was.
    Yes,
    /// Somebody else was faster: read again.
    Outdated,
}

/// The API server, as one node uses it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// As every pod of the cluster may: by the mounted service account.
    ///
    /// # Errors
    /// When this is no pod.
    pub fn from_inside(namespace: &str) -> anyhow::Result<Self> {
        let mut config = kube::Config::incluster().context("this is not a pod with a service account")?;
        // Whoever asks waits and tries again by himself, and says so.
        config.default_retry = false;
        Self::with(config, namespace)
    }

    /// As a file says.
    ///
    /// # Errors
    /// When it cannot be read, or makes no sense.
    pub async fn from_file(path: &Path, namespace: &str) -> anyhow::Result<Self> {
        let file = Kubeconfig::read_from(path)
            .with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.with_context(|| format!("cannot use kubeconfig {}", path.display()))?;
        config.default_retry = false;
        Self::with(config, namespace)
    }

    /// With this configuration.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn with(mut config: kube::Config, namespace: &str) -> anyhow::Result<Self> {
        config.connect_timeout = Some(CONNECT);
        let client = Client::try_from(config).context("cannot make a client for the API server")?;
        Ok(Self { client, namespace: namespace.to_owned() })
    }

    /// The nodes without what changes all the time.
    pub(crate) fn node_names(&self) -> Api<PartialObjectMeta<Node>> {
        Api::all(self.client.clone())
    }

    fn node_objects(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// Every node there is now (not from a cache of the server).
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn nodes(&self) -> anyhow::Result<Nodes> {
        let api = self.node_objects();
        let mut parameters = ListParams::default().limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let page = patiently(api.list(&parameters)).await.context("cannot list the cluster's nodes")?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(Nodes::of(&objects)),
            }
        }
    }

    /// Says on the node that its network works.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn set_network_works(&self, node: &str) -> anyhow::Result<()> {
        let now = clock::of_day();
        let condition = json!({
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "WeaveIsUp",
            "message": "Weave pod has set this",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        });
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let api = self.node_objects();
        let patched = patiently(api.patch_status(node, &PatchParams::default(), &patch)).await;
        patched.map(drop).with_context(|| format!("cannot set the condition of node {node}"))
    }

    /// The shared ConfigMap, if there is one.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn config_map(&self) -> anyhow::Result<Option<ConfigMap>> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        patiently(api.get_opt(SHARED)).await.context("cannot read the list of peers")
    }

    /// Writes the shared ConfigMap: over the version that was read, or the first one.
    ///
    /// # Errors
    /// When the server does not answer, or refuses for another reason than that somebody was faster.
    pub async fn put_config_map(&self, mut map: ConfigMap) -> anyhow::Result<Written> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        map.metadata.name = Some(SHARED.to_owned());
        let is_new = map.metadata.resource_version.is_none();
        let parameters = PostParams::default();
        let put = if is_new {
            patiently(api.create(&parameters, &map)).await
        } else {
            patiently(api.replace(SHARED, &parameters, &map)).await
        };
        written(put, "cannot write the list of peers")
    }

    /// The shared Lease, if there is one.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn lease(&self) -> anyhow::Result<Option<Lease>> {
        let api = Api::<Lease>::namespaced(self.client.clone(), &self.namespace);
        patiently(api.get_opt(SHARED)).await.context("cannot read the lease of the reclaimer")
    }

    /// Writes the shared Lease, as [`Self::put_config_map`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn put_lease(&self, mut lease: Lease) -> anyhow::Result<Written> {
        let api = Api::<Lease>::namespaced(self.client.clone(), &self.namespace);
        lease.metadata.name = Some(SHARED.to_owned());
        let is_new = lease.metadata.resource_version.is_none();
        let parameters = PostParams::default();
        let put = if is_new {
            patiently(api.create(&parameters, &lease)).await
        } else {
            patiently(api.replace(SHARED, &parameters, &lease)).await
        };
        written(put, "cannot write the lease of the reclaimer")
    }
}

async fn patiently<T>(call: impl Future<Output = Result<T, Error>>) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => anyhow::bail!("the API server did not answer in {} s", PATIENCE.as_secs()),
    }
}

fn written<T>(put: anyhow::Result<T>, doing: &'static str) -> anyhow::Result<Written> {
    match put {
        Ok(_) => Ok(Written::Yes),
        Err(error) => match error.downcast_ref::<Error>() {
            Some(Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.code == 409 =>
            {
                Ok(Written::Outdated)
            }
            _ => Err(error.context(doing)),
        },
    }
}
