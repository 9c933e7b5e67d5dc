//! Registration and names of metrics.

#![allow(clippy::unwrap_used)]

use runtime::metrics::Metrics;

#[test]
fn every_metric_name_has_the_prefix_once() {
    let metrics = Metrics::new("test");
    metrics.counter("folded_total", "Records folded.").unwrap().inc();
    metrics.counter("allocator_read_total", "Records read.").unwrap().inc();
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains("\nallocator_folded_total 1\n"), "{text}");
    assert!(text.contains("\nallocator_read_total 1\n"), "{text}");
}

#[test]
fn a_taken_or_invalid_name_is_an_error() {
    let metrics = Metrics::new("test");
    metrics.gauge_vec("lag", "Records behind.", &["partition"]).unwrap();
    let same = metrics.gauge_vec("lag", "Records behind.", &["partition"]).unwrap_err();
    assert_eq!(same.name, "allocator_lag");
    assert!(metrics.gauge_vec("lag", "Records behind.", &["topic"]).is_err());
    assert!(metrics.counter("lag", "Records behind.").is_err());
    assert!(metrics.float_gauge("lag", "Records behind.").is_err());
    assert!(metrics.counter("not a name", "x").is_err());
}
