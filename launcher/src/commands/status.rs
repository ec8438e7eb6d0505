//! What the router says about itself.

use serde::Serialize;
use weave_api::{ApiError, DnsReport, ErrorCode, Exit, IpamReport, PsRequest, Report, views};
use weave_model::ContainerId;

use crate::{
    args::{Output, Ps, Status, View},
    commands::docker,
    context::{Context, Failure, print, talk},
    screen::Shape,
    template::Template,
    watch,
};

pub(super) async fn status(context: &Context, status: &Status) -> Result<(), Failure> {
    watch::repeat(status.watch.watch, || show(context, status.view)).await
}

/// Shows one view once.
async fn show(context: &Context, view: Option<View>) -> Result<(), Failure> {
    let report = context.client.report().await?;
    let router = &report.router;
    let is_wide = context.output == Output::Wide;
    match view {
        None if is_wide => context.show(&report, Shape::Page, || views::wide::status(&report))?,
        None => context.show(&report, Shape::Page, || views::status(&report))?,
        Some(View::Connections) => context.show(&router.connections, Shape::Links, || {
            if is_wide {
                return views::wide::connections(&router.connections, &report.data_plane);
            }
            views::connections(&router.connections)
        })?,
        Some(View::Peers) => context.show(&router.peers, Shape::Peers, || {
            if is_wide { views::wide::peers(&router.peers) } else { views::peers(&router.peers) }
        })?,
        Some(View::Targets) => context.answer(&router.targets, || views::targets(&router.targets))?,
        Some(View::Ipam) => {
            let ipam = ipam(&report)?;
            context.show(ipam, Shape::Columns, || {
                if is_wide { views::wide::ipam(ipam) } else { views::ipam(ipam) }
            })?;
        }
        Some(View::Dns) => {
            let dns = dns(&report)?;
            context.show(dns, Shape::Columns, || {
                if is_wide { views::wide::dns(dns) } else { views::dns(dns) }
            })?;
        }
        Some(View::Overlay) => {
            context.show(&report.data_plane, Shape::Columns, || views::overlay(&report.data_plane))?;
        }
    }
    if report.ready {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::NotReady, "the router is still starting").into())
}

/// Shows what is attached. Of containers that were named and are not, one is told.
pub(super) async fn ps(context: &Context, ps: Ps) -> Result<(), Failure> {
    let mut containers = Vec::new();
    for container in ps.containers {
        containers.push(docker::find(context, Some(&container)).await.map_or(container, |found| found.id));
    }
    let request = PsRequest { containers };
    let show = || async {
        let found = context.client.call(&request).await?.containers;
        context.show(&found, Shape::Containers, || match context.output {
            Output::Wide => views::wide::containers(&found),
            Output::Text | Output::Json | Output::Yaml => views::containers(&found),
        })?;
        let is_found =
            |id: &&ContainerId| found.iter().any(|shown| shown.id.as_str().starts_with(id.as_str()));
        match request.containers.iter().find(|id| !is_found(id)) {
            None => Ok(()),
            Some(id) => {
                Err(ApiError::new(ErrorCode::NotFound, format!("no container {id} is attached here"))
                    .with_hint("`weave ps` lists those that are")
                    .into())
            }
        }
    };
    watch::repeat(ps.watch.watch, show).await
}

/// The whole state as JSON or YAML, or what a template makes of it.
pub(super) async fn report(context: &Context, format: Option<&str>) -> Result<(), Failure> {
    // Before anybody is asked: a mistake is told at once.
    let template = format.map(Template::parse).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    let report = context.client.report().await?;
    let value = serde_json::to_value(&report).map_err(ApiError::internal)?;
    match template {
        Some(template) => {
            let text = template.render(&value).map_err(|e| Failure::usage(e.to_string()))?;
            print(&if text.ends_with('\n') { text } else { text + "\n" })
        }
        None if context.output == Output::Yaml => print(&crate::yaml::to_string(&value)),
        None => print(&(serde_json::to_string_pretty(&report).map_err(ApiError::internal)? + "\n")),
    }
}

pub(super) async fn version(context: &Context) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Versions {
        weave: &'static str,
        weaver: Option<String>,
    }
    let weaver = match context.client.report().await {
        Ok(report) => Some(report.version),
        Err(error) if error.code.exit() == Exit::NotRunning => {
            talk(error);
            None
        }
        Err(error) => return Err(error.into()),
    };
    let versions = Versions { weave: env!("CARGO_PKG_VERSION"), weaver };
    context.answer(&versions, || {
        let router = versions.weaver.iter().map(|v| format!("weaver {v}\n")).collect::<String>();
        format!("weave {}\n{router}", versions.weave)
    })
}

fn ipam(report: &Report) -> Result<&IpamReport, ApiError> {
    report.ipam.as_ref().ok_or_else(|| ApiError::disabled("address management", "--ipalloc-range ''"))
}

fn dns(report: &Report) -> Result<&DnsReport, ApiError> {
    report.dns.as_ref().ok_or_else(|| ApiError::disabled("DNS", "--no-dns"))
}
