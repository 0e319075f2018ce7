//! `/metrics`: what all rooms recorded, in Prometheus's text format.

use crate::error::{Error, Result};
use crate::metrics as names;
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The process's metrics. Installed once, before the pipeline starts.
#[derive(Debug, Clone)]
pub struct MetricsPage {
    handle: PrometheusHandle,
}

impl MetricsPage {
    /// Records all metrics of the process from here on.
    pub fn install() -> Result<Self> {
        let failed = |error: metrics_exporter_prometheus::BuildError| Error::bug("metrics can't be recorded").caused_by(error);
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &names::SECONDS_BUCKETS)
            .map_err(failed)?
            .install_recorder()
            .map_err(failed)?;
        names::describe();
        gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
        Ok(Self { handle })
    }

    /// The page's text now.
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            gauge!(names::RESIDENT_BYTES).set(bytes as f64);
        }
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Folds recorded values together: without it an unscraped process would keep each of them.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// The process's memory, where the system tells it (Linux).
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?.trim();
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_known() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
