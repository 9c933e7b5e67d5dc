//! Apache Parquet: a column a category, of basis points as unsigned 16-bit integers. What the rows are stands in the
//! file's key-value metadata under `allocation`.

use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::Int32Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use schemas::export::Facts;

use super::Rows;
use crate::export::output::Output;

/// Rows that are kept before they are written together: with 64 categories some 17 MB.
const GROUP_ROWS: usize = 65_536;

pub(super) struct Parquet {
    writer: SerializedFileWriter<Output>,
    /// Of the next group of rows.
    columns: Vec<Vec<i32>>,
}

impl Parquet {
    pub(super) fn begin(output: Output, facts: &Facts) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let writer = schema(facts)
            .and_then(|schema| SerializedFileWriter::new(output, schema, Arc::new(properties)))
            .map_err(io::Error::other)?;
        let columns = facts.categories.iter().map(|_| Vec::new()).collect();
        Ok(Self { writer, columns })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for values in &mut self.columns {
            if let Some(mut column) = group.next_column()? {
                column.typed::<Int32Type>().write_batch(values, None, None)?;
                column.close()?;
            }
            values.clear();
        }
        group.close()?;
        Ok(())
    }

    fn finished(mut self, facts: &Facts) -> Result<Output, ParquetError> {
        if self.columns.first().is_some_and(|column| !column.is_empty()) {
            self.write_group()?;
        }
        let facts = serde_json::to_string(facts)
            .map_err(|error| ParquetError::External(Box::new(error)))?;
        let facts = KeyValue::new("allocation".to_owned(), facts);
        self.writer.append_key_value_metadata(facts);
        self.writer.into_inner()
    }
}

impl Rows for Parquet {
    fn row(&mut self, basis_points: &[u16]) -> io::Result<()> {
        for (column, share) in self.columns.iter_mut().zip(basis_points) {
            column.push(i32::from(*share));
        }
        if self.columns.first().is_some_and(|column| column.len() >= GROUP_ROWS) {
            self.write_group().map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, facts: &Facts) -> io::Result<Output> {
        self.finished(facts).map_err(io::Error::other)
    }
}

fn schema(facts: &Facts) -> Result<Arc<Type>, ParquetError> {
    let column = |id: &str| {
        Type::primitive_type_builder(id, PhysicalType::INT32)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(Some(LogicalType::integer(16, false)))
            .build()
            .map(Arc::new)
    };
    let columns = facts.categories.iter().map(|category| column(&category.id));
    let columns = columns.collect::<Result<_, _>>()?;
    Ok(Arc::new(Type::group_type_builder("allocations").with_fields(columns).build()?))
}
