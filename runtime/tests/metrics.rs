//! The registry's promises.

#![allow(clippy::unwrap_used)]

use runtime::metrics::{Metrics, MetricsError};

#[test]
fn the_same_metric_asked_for_twice_is_one_metric() {
    let metrics = Metrics::new("test");
    metrics.counter("folded_total", "Records folded.").unwrap().inc();
    metrics.counter("allocator_folded_total", "Records folded.").unwrap().inc();
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains("\nallocator_folded_total 2\n"), "{text}");
}

#[test]
fn another_metric_under_a_taken_name_is_refused() {
    let metrics = Metrics::new("test");
    metrics.gauge_vec("lag", "Records behind.", &["partition"]).unwrap();
    assert!(matches!(
        metrics.gauge_vec("lag", "Records behind.", &["topic"]),
        Err(MetricsError::Taken(name)) if name == "allocator_lag"
    ));
    assert!(metrics.counter("lag", "Records behind.").is_err());
    assert!(metrics.float_gauge("lag", "Records behind.").is_err());
    assert!(matches!(metrics.counter("not a name", "x"), Err(MetricsError::Invalid { .. })));
}
