//! What the router says about itself.

use serde::Serialize;
use weave_api::{ApiError, DnsReport, ErrorCode, Exit, IpamReport, Report, views};

use crate::{
    args::View,
    context::{Context, Failure, print, talk},
};

pub(super) async fn status(context: &Context, view: Option<View>) -> Result<(), Failure> {
    let report = context.client.report().await?;
    let router = &report.router;
    match view {
        None => context.answer(&report, || views::status(&report))?,
        Some(View::Connections) => {
            context.answer(&router.connections, || views::connections(&router.connections))?;
        }
        Some(View::Peers) => context.answer(&router.peers, || views::peers(&router.peers))?,
        Some(View::Targets) => context.answer(&router.targets, || views::targets(&router.targets))?,
        Some(View::Ipam) => {
            let ipam = ipam(&report)?;
            context.answer(ipam, || views::ipam(ipam))?;
        }
        Some(View::Dns) => {
            let dns = dns(&report)?;
            context.answer(dns, || views::dns(dns))?;
        }
    }
    if report.ready {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::NotReady, "the router is still starting").into())
}

pub(super) async fn report(context: &Context) -> Result<(), Failure> {
    let report = context.client.report().await?;
    let json = serde_json::to_string_pretty(&report).map_err(ApiError::internal)?;
    print(&(json + "\n"))
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
