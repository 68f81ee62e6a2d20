//! All figures of a running lake as Prometheus text.

use std::fmt::Write;
use std::time::Duration;

use crate::lake::Lake;
use crate::memory;
use crate::service::LakeService;
use crate::sink_driver::Upkeep;

/// A label's value with what Prometheus wants escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// One family of figures.
fn family(out: &mut String, name: &str, kind: &str, help: &str, samples: impl Iterator<Item = (String, f64)>) {
    // writing into a string cannot fail
    let _ = writeln!(out, "# HELP livelake_{name} {help}\n# TYPE livelake_{name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(out, "livelake_{name}{labels} {value}");
    }
}

/// The whole page.
pub fn text(lake: &Lake, up: Duration) -> String {
    let mut out = String::new();
    let sources = lake.sources();
    let source = |name: &str| format!("{{source=\"{}\"}}", escaped(name));
    family(&mut out, "source_rows_total", "counter", "Rows read.", sources.iter().map(|s| (source(&s.name), s.rows as f64)));
    family(&mut out, "source_bytes_total", "counter", "Bytes read.", sources.iter().map(|s| (source(&s.name), s.bytes as f64)));
    family(
        &mut out,
        "source_errors_total",
        "counter",
        "Rows put aside.",
        sources.iter().map(|s| (source(&s.name), s.errors as f64)),
    );
    family(
        &mut out,
        "source_restarts_total",
        "counter",
        "Restarts after failures.",
        sources.iter().map(|s| (source(&s.name), s.restarts as f64)),
    );
    let relations = lake.relations();
    let relation = |name: &str| format!("{{relation=\"{}\"}}", escaped(name));
    let sized = || relations.iter().filter_map(|r| Some((relation(&r.name), r.rows?, r.bytes?)));
    family(&mut out, "relation_rows", "gauge", "Rows kept in memory.", sized().map(|(labels, rows, _)| (labels, rows as f64)));
    family(&mut out, "relation_bytes", "gauge", "Bytes of state.", sized().map(|(labels, _, bytes)| (labels, bytes as f64)));
    family(
        &mut out,
        "relation_frontier_seconds",
        "gauge",
        "Everything up to this moment is in the relation.",
        relations.iter().filter(|r| r.as_of > 0).map(|r| (relation(&r.name), r.as_of as f64 / 1e6)),
    );
    let newest = lake.epochs(1);
    family(
        &mut out,
        "epoch",
        "gauge",
        "Number of the newest epoch.",
        newest.iter().map(|epoch| (String::new(), epoch.epoch as f64)),
    );
    family(
        &mut out,
        "epoch_commit_milliseconds",
        "gauge",
        "How long the newest epoch took to commit.",
        newest.iter().map(|epoch| (String::new(), epoch.milliseconds as f64)),
    );
    let upkeep = lake.upkeep();
    let kept = |name: &str, help: &str, value: &dyn Fn(&Upkeep) -> u64, out: &mut String| {
        family(out, name, "counter", help, upkeep.iter().map(|upkeep| (String::new(), value(upkeep) as f64)));
    };
    kept("maintenance_passes_total", "Passes over the tables.", &|upkeep| upkeep.passes, &mut out);
    kept("maintenance_failures_total", "Passes that failed for a table.", &|upkeep| upkeep.failures, &mut out);
    kept("maintenance_files_rewritten_total", "Data files written anew.", &|upkeep| upkeep.files_rewritten, &mut out);
    kept("maintenance_bytes_rewritten_total", "Their bytes.", &|upkeep| upkeep.bytes_rewritten, &mut out);
    kept("maintenance_orphans_removed_total", "Files deleted that nobody reached.", &|upkeep| upkeep.orphans_removed, &mut out);
    family(
        &mut out,
        "peak_memory_bytes",
        "gauge",
        "The most memory the process had.",
        std::iter::once((String::new(), memory::peak_bytes() as f64)),
    );
    family(
        &mut out,
        "memory_bytes",
        "gauge",
        "The memory that the process has.",
        std::iter::once((String::new(), memory::resident_bytes() as f64)),
    );
    family(
        &mut out,
        "memory_limit_bytes",
        "gauge",
        "engine.memory_limit: above it no source is read on.",
        lake.memory_limit().into_iter().map(|limit| (String::new(), limit as f64)),
    );
    family(&mut out, "up_seconds", "gauge", "Since the lake was started.", std::iter::once((String::new(), up.as_secs_f64())));
    out
}
