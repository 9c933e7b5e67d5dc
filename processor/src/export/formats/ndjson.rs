//! JSON lines: each is what its person would submit, but for who it is.

use std::io::{self, Write};

use schemas::export::Facts;

use super::{Rows, percent};
use crate::export::output::Output;

pub(super) struct Ndjson {
    output: Output,
    ids: Vec<String>,
}

impl Ndjson {
    pub(super) fn begin(output: Output, facts: &Facts) -> Self {
        let ids = facts.categories.iter().map(|category| category.id.clone()).collect();
        Self { output, ids }
    }
}

impl Rows for Ndjson {
    fn row(&mut self, basis_points: &[u16]) -> io::Result<()> {
        let given = self.ids.iter().zip(basis_points).filter(|(_, share)| **share > 0);
        // Ids are slugs, which need no escapes.
        let given: Vec<String> =
            given.map(|(id, share)| format!("\"{id}\":{}", percent(*share))).collect();
        writeln!(self.output, "{{\"allocation\":{{{}}}}}", given.join(","))
    }

    fn finish(self: Box<Self>, _facts: &Facts) -> io::Result<Output> {
        Ok(self.output)
    }
}
