//! Exports readiness as metrics: each scrape shows the current state of `/readyz`.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts};

use super::Health;

/// Reads the readiness of the process at each scrape.
pub(super) struct Gauges {
    health: Health,
    ready: IntGauge,
    checks: IntGaugeVec,
}

impl Gauges {
    pub(super) fn of(health: Health) -> Result<Self, prometheus::Error> {
        let ready = IntGauge::with_opts(Opts::new(
            "allocator_ready",
            "1 while the process is ready to receive requests, as in /readyz.",
        ))?;
        let checks = IntGaugeVec::new(
            Opts::new("allocator_ready_check", "1 while the check of /readyz is ready."),
            &["check"],
        )?;
        Ok(Self { health, ready, checks })
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.ready.desc(), self.checks.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let report = self.health.report();
        self.ready.set(report.ready.into());
        for check in report.checks {
            self.checks.with_label_values(&[check.name]).set(check.ready.into());
        }
        [self.ready.collect(), self.checks.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::super::HealthConfig;
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn a_scrape_shows_the_current_readiness() {
        let config = HealthConfig::default();
        let (health, metrics) = (Health::new(&config), Metrics::new("test"));
        health.expose(&metrics).unwrap();
        let shows = |expected: &[&str]| {
            let text = String::from_utf8(metrics.render()).unwrap();
            let shown: Vec<&str> =
                text.lines().filter(|line| line.starts_with("allocator_ready")).collect();
            assert_eq!(shown, expected);
        };
        let (log, store) = (health.check("log"), health.check("store"));
        log.set_ready();
        let one_of_two = [
            "allocator_ready 0",
            "allocator_ready_check{check=\"log\"} 1",
            "allocator_ready_check{check=\"store\"} 0",
        ];
        shows(&one_of_two);
        store.set_ready();
        let both = [
            "allocator_ready 1",
            "allocator_ready_check{check=\"log\"} 1",
            "allocator_ready_check{check=\"store\"} 1",
        ];
        shows(&both);

        store.set_unready("no node");
        shows(&both);
        advance(config.unready_after).await;
        shows(&one_of_two);
    }
}
