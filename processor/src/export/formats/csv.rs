//! A table: the categories' ids, then everyone's percentages.

use std::io::{self, Write};

use schemas::export::Facts;

use super::{Rows, percent};
use crate::export::output::Output;

pub(super) struct Csv(Output);

impl Csv {
    pub(super) fn begin(mut output: Output, facts: &Facts) -> io::Result<Self> {
        // Ids are slugs, which need no quotes.
        let ids = facts.categories.iter().map(|category| category.id.as_str());
        writeln!(output, "{}", ids.collect::<Vec<_>>().join(","))?;
        Ok(Self(output))
    }
}

impl Rows for Csv {
    fn row(&mut self, basis_points: &[u16]) -> io::Result<()> {
        let shares: Vec<String> = basis_points.iter().copied().map(percent).collect();
        writeln!(self.0, "{}", shares.join(","))
    }

    fn finish(self: Box<Self>, _facts: &Facts) -> io::Result<Output> {
        Ok(self.0)
    }
}
